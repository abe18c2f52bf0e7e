/* The page: what is drawn on the paper goes to the network after every movement. */
import { load, supports } from "./build/simd128/tbc.mjs";
import { imageOf } from "./image.mjs";

const [paper, clear, digit, scores, said] = ["paper", "clear", "digit", "scores", "said"].map((id) =>
    document.getElementById(id),
);
const pen = paper.getContext("2d");
let strokes = [];

const meters = Array.from({ length: 10 }, (_, i) => {
    const item = document.createElement("li");
    const meter = document.createElement("meter");
    item.append(`${i} `, meter);
    scores.append(item);
    return meter;
});

/** Scores as shares of 1. */
function softmax(logits) {
    const powers = Array.from(logits, (x) => Math.exp(x - Math.max(...logits)));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
}

function show(model) {
    pen.clearRect(0, 0, paper.width, paper.height);
    for (const stroke of strokes) {
        pen.beginPath();
        for (const [x, y] of [...stroke, stroke.at(-1)]) pen.lineTo(x, y);
        pen.stroke();
    }
    const { logits } = strokes.length ? model.run({ x: imageOf(strokes) }) : { logits: undefined };
    const shares = logits ? softmax(logits) : meters.map(() => 0);
    meters.forEach((meter, i) => (meter.value = shares[i]));
    digit.textContent = logits ? String(shares.indexOf(Math.max(...shares))) : "";
}

/** Where an event happened, in the paper's units. */
function at({ clientX, clientY }) {
    const box = paper.getBoundingClientRect();
    return [clientX - box.left - paper.clientLeft, clientY - box.top - paper.clientTop];
}

try {
    const folder = supports("simd128") ? "build/simd128" : "build/plain";
    const model = await load(`${folder}/libdigits_mlp.wasm`);
    Object.assign(pen, { lineWidth: 20, lineCap: "round", lineJoin: "round", strokeStyle: "#222" });
    paper.addEventListener("pointerdown", (event) => {
        if (event.isTrusted) paper.setPointerCapture(event.pointerId);
        strokes.push([at(event)]);
        show(model);
    });
    paper.addEventListener("pointermove", (event) => {
        if (event.buttons === 0 || strokes.length === 0) return;
        strokes.at(-1).push(at(event));
        show(model);
    });
    clear.addEventListener("click", () => {
        strokes = [];
        show(model);
    });
    show(model);
    said.textContent = `${model.name}, compiled for ${model.target} by tbc ${model.version}`;
} catch (error) {
    said.textContent = error.message;
}
