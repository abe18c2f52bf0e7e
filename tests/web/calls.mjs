/*
 * Loads models and calls them as a list of steps says, for tests: {load, file, weights} names one,
 * {model, inputs, dims} runs it, {reset} forgets its state, {test} runs its self-test. An array is {dtype, data}, data in base64.
 * The answers are {outputs}, {model}, or {status, message} of a TbcError.
 */
import { TbcError, load } from "./tbc.mjs";

const ARRAYS = {
    float32: Float32Array,
    float64: Float64Array,
    float16: Uint16Array,
    uint8: Uint8Array,
    int8: Int8Array,
    uint16: Uint16Array,
    int16: Int16Array,
    uint32: Uint32Array,
    int32: Int32Array,
    uint64: BigUint64Array,
    int64: BigInt64Array,
    bool: Uint8Array,
};

function array({ dtype, data }) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    return new ARRAYS[dtype](bytes.buffer);
}

function encoded(found) {
    const bytes = new Uint8Array(found.buffer, found.byteOffset, found.byteLength);
    const data = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    return { data, shape: found.shape, type: found.constructor.name };
}

const mapped = (object, f) => Object.fromEntries(Object.entries(object).map(([k, v]) => [k, f(v)]));

export async function answer(steps) {
    const models = {};
    const answers = [];
    for (const step of steps) {
        try {
            if (step.load) {
                const model = await load(step.file, { weights: step.weights });
                models[step.load] = model;
                const { name, version, target, inputs, outputs, symbols } = model;
                answers.push({ model: { name, version, target, inputs, outputs, symbols } });
            } else if (step.test) {
                models[step.test].selfTest();
                answers.push({});
            } else if (step.reset) {
                models[step.reset].reset();
                answers.push({});
            } else {
                const inputs = mapped(step.inputs, (x) => (x?.dtype ? array(x) : x));
                answers.push({ outputs: mapped(models[step.model].run(inputs, step.dims), encoded) });
            }
        } catch (error) {
            if (!(error instanceof TbcError)) throw error;
            answers.push({ status: error.status, message: error.message });
        }
    }
    return answers;
}
