// npm run demo: fine-tunes the bundled Llama on bundled text, in its upper layers only, and lets it write before and after.
// --quick makes a few steps, to show that everything works.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const quick = process.argv.includes("--quick");
const started = Date.now();

const quote = (word) => (/^[\w./,:-]+$/.test(word) ? word : `"${word}"`);

/** Runs a command as a person would, and shows it. */
function graft(...words) {
  console.log(`\n$ npx graft ${words.map(quote).join(" ")}`);
  const { status } = spawnSync(process.execPath, ["dist/cli/main.js", ...words], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

const model = "models/tiny-llama";
const data = "data/devils-dictionary";
const adapter = quick ? "out/demo-quick" : "out/demo";
const writing = [
  "--prompt",
  "Marriage, n. ",
  "--max-new-tokens",
  "40",
  "--temperature",
  "0.6",
  "--seed",
  "2",
];

console.log(
  "A Llama of 1.4 M parameters that knows the King James Bible learns to write like Ambrose Bierce.",
);
graft("generate", model, ...writing);
graft(
  "train",
  model,
  "--data",
  `${data}/train.jsonl`,
  "--eval-data",
  `${data}/test.jsonl`,
  "--target-modules",
  "q_proj,v_proj,o_proj,up_proj,down_proj",
  "--layers-to-transform",
  "2,3,4,5",
  "--r",
  "16",
  "--lora-alpha",
  "32",
  "--learning-rate",
  "5e-3",
  ...(quick ? ["--max-steps", "12"] : ["--epochs", "4"]),
  "--output",
  adapter,
  "--overwrite",
);
graft("generate", model, "--adapter", adapter, ...writing);

for (const file of ["adapter_config.json", "adapter_model.safetensors"])
  if (!existsSync(`${adapter}/${file}`)) throw new Error(`${adapter}/${file} is missing`);
const { target_modules: modules, layers_to_transform: layers } = JSON.parse(
  readFileSync(`${adapter}/adapter_config.json`, "utf8"),
);
console.log(
  `\nThe adapter is in ${adapter}: ${modules.join(", ")} of layers ${layers.join(", ")}. Python PEFT loads it as it is:`,
);
console.log(`  PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("${model}"), "${adapter}")`);
console.log(`Done in ${Math.round((Date.now() - started) / 1000)} s.`);
