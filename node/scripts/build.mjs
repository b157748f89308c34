// Builds the addon with cargo and puts it where the package loads it. `--release` or ARCP_PROFILE=release optimises.
import { spawnSync } from "node:child_process";
import { copyFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const home = dirname(dirname(fileURLToPath(import.meta.url)));
const release = process.argv.includes("--release") || process.env.ARCP_PROFILE === "release";
const profile = release ? ["--release"] : [];
const cargo = spawnSync("cargo", ["build", "-p", "arcp-node", ...profile, "--message-format=json-render-diagnostics"], {
  cwd: dirname(home),
  encoding: "utf8",
  maxBuffer: 64 * 1024 * 1024,
  stdio: ["ignore", "pipe", "inherit"],
});
if (cargo.error) throw cargo.error;
if (cargo.status !== 0) process.exit(cargo.status ?? 1);

const library = cargo.stdout
  .split("\n")
  .filter((line) => line.startsWith("{"))
  .map((line) => JSON.parse(line))
  .filter((message) => message.reason === "compiler-artifact" && message.target.name === "arcp_node")
  .flatMap((message) => message.filenames)
  .find((file) => /\.(so|dylib|dll)$/.test(file));
if (library === undefined) throw new Error("cargo built no library for arcp-node");

// Removed first: a running Node may have the old file mapped.
const addon = join(home, "arcp.node");
rmSync(addon, { force: true });
copyFileSync(library, addon);
