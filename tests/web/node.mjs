/* Answers the steps on the standard input; calls.mjs tells what they are. */
import { readFileSync } from "node:fs";
import { answer } from "./calls.mjs";

console.log(JSON.stringify(await answer(JSON.parse(readFileSync(0, "utf8")))));
