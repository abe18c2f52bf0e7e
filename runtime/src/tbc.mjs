/*
 * tbc.mjs - a model compiled by tbc to WebAssembly, in browsers, Node.js and the like.
 *
 *     import { load, supports } from "./tbc.mjs";
 *     const model = await load(supports("simd128") ? "libnet-simd128.wasm" : "libnet.wasm");
 *     const { scores } = model.run({ x: new Float32Array(64) });
 *
 * A module of JavaScript without dependencies. Each loaded model has an instance and a memory of its
 * own. It reads the constant that tbc.h describes, as wasm32 lays it out.
 */

/** The layout of tbc.h's structures; a model and this file must agree on it. */
export const ABI = 4;

const TEXTS = [
    "no error",
    "the model was compiled for another version of tbc.h",
    "this CPU lacks instructions that the model uses",
    "a pointer that the model needs is NULL",
    "arena, fast memory, state or weights are not aligned enough",
    "a dimension is outside the range the model was compiled for",
    "the weights are absent or are not this model's",
    "an input holds a value the model cannot accept",
    "this is not a blob, or it is damaged",
    "there is not enough memory to open the blob in",
    "the file cannot be read or mapped",
    "the self-test does not give what it should",
    "the model has no self-test",
];

/** What a status of tbc.h means, in English. */
export const statusText = (status) => TEXTS[status] ?? "unknown status";

/** Of tbc.h's statuses, those that this file gives by itself. */
const STATUS = {
    ABI: 1,
    CPU: 2,
    DIM: 5,
    WEIGHTS: 6,
    VALUE: 7,
    MEMORY: 9,
    FILE: 10,
    SELF_TEST: 11,
    NO_TEST: 12,
};

/** Why a model cannot be loaded or run; `status` is one of tbc.h's. */
export class TbcError extends Error {
    constructor(status, message) {
        super(message);
        this.name = "TbcError";
        this.status = status;
    }
}

/** enum tbc_dtype -> its name, and the array that holds such elements. */
const DTYPES = {
    1: ["float32", Float32Array],
    2: ["uint8", Uint8Array],
    3: ["int8", Int8Array],
    4: ["uint16", Uint16Array],
    5: ["int16", Int16Array],
    6: ["int32", Int32Array],
    7: ["int64", BigInt64Array],
    9: ["bool", Uint8Array],
    10: ["float16", Uint16Array],
    11: ["float64", Float64Array],
    12: ["uint32", Uint32Array],
    13: ["uint64", BigUint64Array],
    16: ["bfloat16", Uint16Array],
};

/** Feature -> a module of one function that uses it: what an engine without it finds invalid. */
const HEADER = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0];
const PROBES = {
    // i32.const 0, i8x16.splat
    simd128: [...HEADER, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11],
    // i32.const 0, i8x16.splat twice, i8x16.relaxed_swizzle
    "relaxed-simd": [...HEADER, 10, 15, 1, 13, 0, 65, 0, 253, 15, 65, 0, 253, 15, 253, 128, 2, 11],
};

/**
 * Whether this engine has what code for `wasm32+simd128` ("simd128") or `wasm32+relaxed`
 * ("relaxed-simd") uses.
 */
export function supports(feature) {
    if (!(feature in PROBES)) {
        throw new RangeError(`${feature} is none of ${Object.keys(PROBES).join(", ")}`);
    }
    return WebAssembly.validate(new Uint8Array(PROBES[feature]));
}

/**
 * Load a model.
 *
 * @param source where the .wasm file lies (a URL; in Node.js also a path), or its bytes.
 * @param options `weights`: the same for <name>.weights, where tbc wrote such a file.
 * @returns a promise of a `Model`.
 * @throws TbcError if it cannot be read, compiled, or given memory, or is no model of this ABI.
 */
export async function load(source, { weights } = {}) {
    const bytes = await bytesOf(source);
    let exports;
    try {
        const { instance } = await WebAssembly.instantiate(bytes);
        exports = instance.exports;
    } catch (error) {
        const what = ArrayBuffer.isView(source) || source instanceof ArrayBuffer ? "it" : source;
        throw new TbcError(STATUS.CPU, `this engine cannot run ${what}: ${error.message}`);
    }
    return new Model(exports, weights === undefined ? undefined : await bytesOf(weights));
}

async function bytesOf(source) {
    if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) return source;
    const url = String(source);
    try {
        if (globalThis.process?.versions?.node && !/^(https?|data|blob):/.test(url)) {
            const { readFile } = await import("node:fs/promises");
            return await readFile(url.startsWith("file:") ? new URL(url) : url);
        }
        const response = await fetch(url);
        if (!response.ok) throw new Error(`status ${response.status}`);
        return await response.arrayBuffer();
    } catch (error) {
        throw new TbcError(STATUS.FILE, `${url} cannot be read: ${error.message}`);
    }
}

/**
 * A model that is ready to run. `load` makes them.
 *
 * `name`, `version` and `target` are texts; `inputs` and `outputs` are lists of `name`, `dtype`,
 * `shape` (at the upper bounds), `dims` (the sizes as text) and `bytes`; `symbols` are the sizes that
 * vary, as `name`, `lo` and `hi`.
 */
export class Model {
    #exports;
    #functions;
    #selfTest;
    #at;
    #stateSize;

    constructor(exports, weights) {
        const { memory, tbc_models: models, __indirect_function_table: table } = exports;
        if (!(memory instanceof WebAssembly.Memory) || !models || !table) {
            throw new TbcError(STATUS.ABI, "the module is no model of tbc");
        }
        if (typeof models.value !== "number") {
            throw new TbcError(STATUS.ABI, "the module is of wasm64; compile for wasm32");
        }
        this.#exports = exports;
        const at = this.#word(models.value >>> 0);
        const word = (offset) => this.#word(at + offset);
        if (word(0) !== ABI) {
            throw new TbcError(STATUS.ABI, `${statusText(STATUS.ABI)}: ${word(0)}, not ${ABI}`);
        }
        [this.name, this.version, this.target] = [8, 12, 16].map((o) => this.#text(word(o)));
        this.inputs = this.#tensors(word(32), word(44));
        this.outputs = this.#tensors(word(36), word(48));
        this.symbols = Array.from({ length: word(52) }, (_, i) => {
            const [name, lo, hi] = [0, 4, 8].map((o) => this.#word(word(40) + 12 * i + o));
            return { name: this.#text(name), lo, hi };
        });
        this.#functions = { run: table.get(word(84)), outputShape: table.get(word(92)) };
        this.#selfTest = word(100);
        this.#stateSize = word(68);
        const weightsSize = word(80) === 0 ? word(72) : 0;
        this.#allocate(word(56), word(60), word(64), weightsSize);
        if (weightsSize !== 0) this.#setWeights(weights, weightsSize, word(76));
    }

    /**
     * Run the model.
     *
     * @param inputs name -> a typed array of the input's type in C order, or an Array of numbers.
     *     float16 and bfloat16 are their bits in a Uint16Array, bool is bytes, 64-bit integers are
     *     a BigInt64Array or BigUint64Array.
     * @param dims name -> value of sizes that vary; those that an input's length tells may be absent.
     * @returns name -> a new typed array with a property `shape`, for each output.
     * @throws TbcError if an input is absent, of a wrong type or length, or refused by the model.
     */
    run(inputs, dims = {}) {
        const arrays = this.inputs.map((input) => this.#array(input, inputs));
        for (const name of Object.keys(inputs)) {
            if (!this.inputs.some((input) => input.name === name)) {
                this.#fail(STATUS.VALUE, `there is no input '${name}'`);
            }
        }
        const sizes = this.#sizes(arrays, dims);
        const { memory } = this.#exports;
        this.inputs.forEach((input, i) => {
            const shape = shapeOf(input, sizes);
            if (shape === undefined) {
                this.#fail(STATUS.DIM, `input '${input.name}' has a formula as size: ${input.dims}`);
            }
            if (arrays[i].length !== product(shape)) {
                const type = `${input.dtype}[${shape}]`;
                const size = `${arrays[i].length} elements, not ${product(shape)}`;
                this.#fail(STATUS.DIM, `input '${input.name}', ${type}, is given ${size}`);
            }
            const Type = DTYPES[input.code][1];
            new Type(memory.buffer, this.#at.inputs[i], arrays[i].length).set(arrays[i]);
        });
        const words = new Uint32Array(memory.buffer, this.#at.dims, this.symbols.length);
        words.set(this.symbols.map(({ name }) => sizes[name]));
        this.#check(this.#functions.run(this.#at.call));
        const results = this.outputs.map((output, i) => [output.name, this.#result(output, i)]);
        return Object.fromEntries(results);
    }

    /** Forget what was kept between calls. */
    reset() {
        new Uint8Array(this.#exports.memory.buffer, this.#at.state, this.#stateSize).fill(0);
    }

    /**
     * Find out whether the model computes here the very bits that its compiler did: see
     * tbc_self_test.c. The state is zeroed first.
     *
     * @throws TbcError if it does not, or has no such test.
     */
    selfTest() {
        if (this.#selfTest === 0) this.#check(STATUS.NO_TEST);
        let at = this.#selfTest;
        const next = () => this.#word((at += 4) - 4);
        const expected = next();
        const dims = Object.fromEntries(this.symbols.map(({ name }) => [name, next()]));
        const inputs = this.inputs.map((input, i) => {
            const made = testInput(input, product(shapeOf(input, dims)), i + 1, next(), next());
            return [input.name, made];
        });
        this.reset();
        const outputs = this.run(Object.fromEntries(inputs), dims);
        const parts = this.outputs.map(({ name }) => bytesIn(outputs[name]));
        if (crc32(parts) !== expected) this.#check(STATUS.SELF_TEST);
    }

    #result(output, index) {
        this.#check(this.#functions.outputShape(this.#at.call, index, this.#at.shape));
        const { buffer } = this.#exports.memory;
        const shape = [...new Uint32Array(buffer, this.#at.shape, output.shape.length)];
        const Type = DTYPES[output.code][1];
        const found = new Type(buffer, this.#at.outputs[index], product(shape));
        return Object.assign(found.slice(), { shape });
    }

    /** What is given for an input, as the array that holds its type. */
    #array({ name, dtype, code }, inputs) {
        const given = inputs[name];
        const Type = DTYPES[code][1];
        if (given instanceof Type) return given;
        if (given === undefined) this.#fail(STATUS.VALUE, `input '${name}' is not given`);
        if (!Array.isArray(given)) {
            const found = given?.constructor?.name ?? String(given);
            this.#fail(STATUS.VALUE, `input '${name}' of ${dtype} takes ${Type.name}, not ${found}`);
        }
        return Type.from(Type.name.startsWith("Big") ? given.map(BigInt) : given);
    }

    /** The sizes that vary: those given, and those that follow from the length of an input. */
    #sizes(arrays, given) {
        const sizes = Object.create(null);
        for (const [name, value] of Object.entries(given)) {
            if (!this.symbols.some((symbol) => symbol.name === name)) {
                this.#fail(STATUS.DIM, `there is no size '${name}'`);
            }
            sizes[name] = value;
        }
        for (const { name } of this.symbols) {
            if (name in sizes) continue;
            const shapes = this.inputs.map((input) => shapeOf(input, { ...sizes, [name]: 1 }));
            const tells = (input, i) => sizesIn(input).includes(name) && shapes[i];
            const found = this.inputs.findIndex((input, i) => tells(input, i) && product(shapes[i]));
            if (found < 0) this.#fail(STATUS.DIM, `the size '${name}' is not given`);
            sizes[name] = Math.floor(arrays[found].length / product(shapes[found]));
        }
        for (const { name, lo, hi } of this.symbols) {
            if (!Number.isInteger(sizes[name]) || sizes[name] < lo || sizes[name] > hi) {
                this.#fail(STATUS.DIM, `the size '${name}' is ${sizes[name]}, not ${lo} to ${hi}`);
            }
        }
        return sizes;
    }

    /** Take memory behind the module's own for all that a call works in, and write the call. */
    #allocate(align, arenaSize, fastSize, weightsSize) {
        const { memory } = this.#exports;
        const start = memory.buffer.byteLength;
        let end = start;
        const take = (size) => {
            const at = Math.ceil(end / Math.max(align, 16)) * Math.max(align, 16);
            end = at + size;
            return at;
        };
        const tensors = [...this.inputs, ...this.outputs];
        this.#at = {
            call: take(32),
            pointers: take(4 * tensors.length),
            dims: take(4 * this.symbols.length),
            shape: take(4 * Math.max(0, ...tensors.map(({ shape }) => shape.length))),
            arena: take(arenaSize),
            fast: take(fastSize),
            state: take(this.#stateSize),
            weights: take(weightsSize),
            inputs: this.inputs.map(({ bytes }) => take(bytes)),
            outputs: this.outputs.map(({ bytes }) => take(bytes)),
        };
        try {
            memory.grow(Math.ceil((end - start) / 65536));
        } catch {
            this.#fail(STATUS.MEMORY, `${end} bytes of memory cannot be had`);
        }
        const { call, pointers, arena, fast, state, weights, dims, inputs, outputs } = this.#at;
        new Uint32Array(memory.buffer, pointers, tensors.length).set([...inputs, ...outputs]);
        const own = weightsSize === 0 ? 0 : weights;
        const words = [pointers, pointers + 4 * inputs.length, arena, state, own, dims, 0, fast];
        new Uint32Array(memory.buffer, call, words.length).set(words);
    }

    #setWeights(weights, size, sum) {
        if (weights === undefined) this.#fail(STATUS.WEIGHTS, "the option 'weights' is not given");
        const bytes = bytesIn(weights);
        if (bytes.length !== size || crc32([bytes]) !== sum) {
            this.#fail(STATUS.WEIGHTS, "the weights are not this model's");
        }
        new Uint8Array(this.#exports.memory.buffer).set(bytes, this.#at.weights);
    }

    #tensors(at, count) {
        return Array.from({ length: count }, (_, i) => {
            const [name, code, rank, shape, dims, bytes] = [0, 4, 8, 12, 16, 20].map((o) =>
                this.#word(at + 24 * i + o),
            );
            return {
                name: this.#text(name),
                dtype: DTYPES[code][0],
                code,
                shape: Array.from({ length: rank }, (_, axis) => this.#word(shape + 4 * axis)),
                dims: this.#text(dims),
                bytes,
            };
        });
    }

    #word(at) {
        return new DataView(this.#exports.memory.buffer).getUint32(at, true);
    }

    #text(at) {
        const bytes = new Uint8Array(this.#exports.memory.buffer);
        return new TextDecoder().decode(bytes.subarray(at, bytes.indexOf(0, at)));
    }

    #check(status) {
        if (status !== 0) this.#fail(status, statusText(status));
    }

    #fail(status, message) {
        throw new TbcError(status, `${this.name}: ${message}`);
    }
}

const product = (sizes) => sizes.reduce((a, b) => a * b, 1);

const sizesIn = ({ dims }) => (dims === "" ? [] : dims.split(","));

/** A tensor's shape; undefined where it has a size that is unknown, or a formula. */
function shapeOf(tensor, sizes) {
    const shape = sizesIn(tensor).map((dim) => (/^\d+$/.test(dim) ? Number(dim) : sizes[dim]));
    return shape.includes(undefined) ? undefined : shape;
}

/** The bytes of a typed array or an ArrayBuffer. */
function bytesIn(data) {
    if (!ArrayBuffer.isView(data)) return new Uint8Array(data);
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** CRC-32 (ISO-HDLC, as in zlib) of bytes in parts. */
function crc32(parts) {
    const table = Uint32Array.from({ length: 256 }, (_, n) => {
        for (let i = 0; i < 8; i++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
        return n;
    });
    let sum = 0xffffffff;
    for (const bytes of parts) {
        for (const byte of bytes) sum = table[(sum ^ byte) & 255] ^ (sum >>> 8);
    }
    return ~sum >>> 0;
}

/** What the self-test gives to an input, which is counted from 1 on. */
function testInput({ dtype, code }, length, state, low, span) {
    const element = {
        float32: (value) => value / 2 ** 14,
        float64: (value) => value / 2 ** 14,
        float16: (value) => halfBits(value, 10, 15 - 6),
        bfloat16: (value) => halfBits(value, 7, 127 - 6),
        int64: BigInt,
        uint64: BigInt,
    }[dtype];
    const made = new DTYPES[code][1](length);
    for (let i = 0; i < length; i++) {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        const value = (low + (Math.imul(state >>> 16, span) >>> 16)) | 0;
        made[i] = element ? element(value) : value;
    }
    return made;
}

/** The bits of value * 2^e as a float of 16 bits with a fraction of some; e is in the bias. */
function halfBits(value, fraction, bias) {
    if (value === 0) return 0;
    const m = Math.abs(value);
    const e = 31 - Math.clz32(m);
    const below = (m << (fraction - e)) & ((1 << fraction) - 1);
    return (value < 0 ? 0x8000 : 0) | ((bias + e) << fraction) | below;
}
