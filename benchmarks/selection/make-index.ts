/**
 * Writes a sharded checkpoint of a mixture of experts whose headers are real and whose data is a hole in the file: what
 * `graft inspect` has to read of a model of hundreds of gigabytes, in a few megabytes.
 *
 *     node --import tsx benchmarks/selection/make-index.ts DIR [--tensors 100000] [--shards 32] [--type some_moe]
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

export type IndexOptions = {
  readonly tensors?: number;
  readonly shards?: number;
  readonly modelType?: string;
};

type Row = readonly [name: string, shape: readonly number[]];

const hidden = 2048;
const experts = 256;

/** Tensors of a layer, in the order of the model. */
function layer(index: number): Row[] {
  const name = (rest: string) => `model.layers.${index}.${rest}.weight`;
  const rows: Row[] = [
    [name("self_attn.q_a_proj"), [768, hidden]],
    [name("self_attn.q_a_layernorm"), [768]],
    [name("self_attn.q_b_proj"), [4096, 768]],
    [name("self_attn.kv_a_proj_with_mqa"), [576, hidden]],
    [name("self_attn.kv_a_layernorm"), [512]],
    [name("self_attn.kv_b_proj"), [4096, 512]],
    [name("self_attn.o_proj"), [hidden, 2048]],
    [name("mlp.gate"), [experts, hidden]],
    [name("mlp.shared_experts.gate_proj"), [1024, hidden]],
    [name("mlp.shared_experts.up_proj"), [1024, hidden]],
    [name("mlp.shared_experts.down_proj"), [hidden, 1024]],
    [name("input_layernorm"), [hidden]],
    [name("post_attention_layernorm"), [hidden]],
  ];
  for (let expert = 0; expert < experts; expert++)
    rows.push(
      [name(`mlp.experts.${expert}.gate_proj`), [512, hidden]],
      [name(`mlp.experts.${expert}.up_proj`), [512, hidden]],
      [name(`mlp.experts.${expert}.down_proj`), [hidden, 512]],
    );
  return rows;
}

/** Exactly that many tensors: as many whole layers as fit, and norms. */
function tensorRows(count: number): Row[] {
  const rows: Row[] = [
    ["model.embed_tokens.weight", [64_000, hidden]],
    ["model.norm.weight", [hidden]],
    ["lm_head.weight", [64_000, hidden]],
  ];
  for (let i = 0; rows.length + layer(i).length <= count; i++) rows.push(...layer(i));
  for (let i = 0; rows.length < count; i++) rows.push([`model.extra_norms.${i}.weight`, [hidden]]);
  return rows;
}

/** Writes the directory, with config.json. @returns the number of bytes of all headers */
export async function makeIndex(
  directory: string,
  { tensors = 100_000, shards = 32, modelType = "some_moe" }: IndexOptions = {},
): Promise<number> {
  mkdirSync(directory, { recursive: true });
  const rows = tensorRows(tensors);
  const perShard = Math.ceil(rows.length / shards);
  const weightMap: Record<string, string> = {};
  let [headerBytes, total] = [0, 0];
  for (let i = 0; i < shards; i++) {
    const file = `model-${String(i + 1).padStart(5, "0")}-of-${String(shards).padStart(5, "0")}.safetensors`;
    // As the writer of safetensors does: one dtype, so by name.
    const part = rows.slice(i * perShard, (i + 1) * perShard).sort((a, b) => (a[0] < b[0] ? -1 : 1));
    const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
    let end = 0;
    for (const [name, shape] of part) {
      const start = end;
      end += 2 * shape.reduce((a, b) => a * b, 1);
      header[name] = { dtype: "BF16", shape, data_offsets: [start, end] };
      weightMap[name] = file;
    }
    const text = JSON.stringify(header);
    const bytes = Buffer.from(text + " ".repeat((8 - (text.length % 8)) % 8));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(bytes.length));
    const handle = await open(join(directory, file), "w");
    await handle.write(Buffer.concat([length, bytes]));
    await handle.truncate(8 + bytes.length + end);
    await handle.close();
    headerBytes += 8 + bytes.length;
    total += end;
  }
  const sorted = Object.fromEntries(Object.entries(weightMap).sort(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(
    join(directory, "model.safetensors.index.json"),
    JSON.stringify({ metadata: { total_size: total }, weight_map: sorted }, null, 2),
  );
  writeFileSync(
    join(directory, "config.json"),
    JSON.stringify({
      architectures: ["SomeMoeForCausalLM"],
      model_type: modelType,
      hidden_size: hidden,
      vocab_size: 64_000,
      n_routed_experts: experts,
      tie_word_embeddings: false,
    }),
  );
  return headerBytes;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { tensors: { type: "string" }, shards: { type: "string" }, type: { type: "string" } },
  });
  const [directory] = positionals;
  if (directory === undefined)
    throw new Error("usage: make-index.ts DIR [--tensors N] [--shards N] [--type NAME]");
  const bytes = await makeIndex(directory, {
    ...(values.tensors === undefined ? {} : { tensors: Number(values.tensors) }),
    ...(values.shards === undefined ? {} : { shards: Number(values.shards) }),
    ...(values.type === undefined ? {} : { modelType: values.type }),
  });
  console.log(`${directory}: ${(bytes / 1e6).toFixed(1)} MB of headers`);
}
