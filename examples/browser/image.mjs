/*
 * What was drawn, as the network was trained to see it: the 8 x 8 image of the UCI digits, in which
 * each pixel counts the inked ones among 4 x 4 of a 32 x 32 bitmap that the digit fills.
 */

const SIDE = 32;
const BLOCK = 4;
/** Half the width of a line: as much ink as the images have that the network was trained on. */
const RADIUS = 2.75;

/**
 * The image of lines drawn in any units.
 *
 * @param strokes lists of points [x, y], y downwards.
 * @returns Float32Array of 64 numbers from 0 to 1, row by row.
 */
export function imageOf(strokes) {
    const fitted = fit(strokes);
    const image = new Float32Array((SIDE / BLOCK) ** 2);
    for (let y = 0; y < SIDE; y++) {
        for (let x = 0; x < SIDE; x++) {
            if (!fitted.some((stroke) => touches(stroke, x + 0.5, y + 0.5))) continue;
            const pixel = Math.floor(y / BLOCK) * (SIDE / BLOCK) + Math.floor(x / BLOCK);
            image[pixel] += 1 / BLOCK ** 2;
        }
    }
    return image;
}

/** The strokes moved and scaled, both axes alike, to the middle of the bitmap. */
function fit(strokes) {
    const points = strokes.flat();
    const low = [0, 1].map((axis) => Math.min(...points.map((point) => point[axis])));
    const high = [0, 1].map((axis) => Math.max(...points.map((point) => point[axis])));
    const size = Math.max(high[0] - low[0], high[1] - low[1], 1e-9);
    const scale = (SIDE - 2 * RADIUS) / size;
    const place = (value, axis) => SIDE / 2 + (value - (low[axis] + high[axis]) / 2) * scale;
    return strokes.map((stroke) => stroke.map((point) => point.map(place)));
}

/** Whether a pixel's middle lies on a line. */
function touches(stroke, x, y) {
    return stroke.some(([x1, y1], i) => {
        const [x2, y2] = stroke[i + 1] ?? [x1, y1];
        const [dx, dy] = [x2 - x1, y2 - y1];
        const along = ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy || 1);
        const t = Math.min(1, Math.max(0, along));
        return Math.hypot(x - x1 - t * dx, y - y1 - t * dy) <= RADIUS;
    });
}
