"use strict";
// Speaks for Jest to Regatta: lists its test files, or runs those that it is given and writes JUnit XML.
//
//     node regatta_jest.cjs list COMMAND...
//     node regatta_jest.cjs run JUNIT SECONDS COMMAND... @FILE
//
// COMMAND starts Jest, with arguments of its own. FILE has a test file on each line. SECONDS is how long a test
// file may take. Jest loads this file, too, as its reporter: the report is whole at any moment, so that a test
// which ends the process is reported as the one that ran, after those before it.

const { spawn, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");

// What tells the reporter where to write.
const JUNIT = "REGATTA_JEST_JUNIT";
// Where Jest is if the project has installed it.
const INSTALLED = path.join("node_modules", ".bin", "jest");
// How much of what was wrong and of what was written a file's case repeats, in characters.
const FAILURE_CHARACTERS = 64 * 1024;
const OUTPUT_CHARACTERS = 16 * 1024;
const HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<testsuites><testsuite name="jest">\n';
const TAIL = "</testsuite></testsuites>\n";
// What says that a file ended its runner, and that it did because its time was over.
const RUNNER_ENDED = "regatta.runner-ended";
const RUNNER_TIMED_OUT = "regatta.runner-timed-out";
// What XML cannot express, terminals' colours first.
const COLOURS = /\u001b\[[0-9;]*m/g;
const NOT_XML = /[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu;
const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": "&#10;" };

function text(value) {
  const printable = value.replace(COLOURS, "").replace(NOT_XML, "\ufffd");
  return printable.replace(/[&<>]/g, (character) => ENTITIES[character]);
}

function attribute(value) {
  return `"${text(value).replace(/["\n]/g, (character) => ENTITIES[character])}"`;
}

// The id of a test file: its path from where Jest is started.
function id(file) {
  return path.relative(process.cwd(), file);
}

function testcase(file, seconds, inside) {
  const time = seconds === undefined ? "" : ` time="${seconds.toFixed(3)}"`;
  return `<testcase name=${attribute(id(file))}${time}>${inside}</testcase>\n`;
}

// What a file's tests came to.
function verdict(result) {
  const failed = result.testResults.filter((test) => test.status === "failed");
  if (failed.length > 0) {
    const first = `${failed.length} of ${result.testResults.length} tests failed: ${failed[0].fullName}`;
    return failure("failure", failed.length > 1 ? `${first}, ...` : first, result.failureMessage);
  }
  if (result.testExecError || result.failureMessage) {
    return failure("failure", "the file's tests cannot be run", result.failureMessage || String(result.testExecError));
  }
  // jest.retryTimes() ran them until they passed.
  const again = result.testResults.filter((test) => test.status === "passed" && test.invocations > 1);
  if (again.length > 0) {
    const reasons = again.flatMap((test) => test.retryReasons || []).join("\n");
    return failure("flakyFailure", `failed before: ${again[0].fullName}`, reasons);
  }
  const ran = result.testResults.some((test) => test.status === "passed");
  return ran ? "" : '<skipped message="each of its tests is skipped"/>';
}

function failure(element, message, details) {
  const inside = text((details || "").slice(0, FAILURE_CHARACTERS));
  return `<${element} message=${attribute(message)}>${inside}</${element}>`;
}

function output(result) {
  const lines = (result.console || []).map((entry) => entry.message);
  const all = lines.join("\n").slice(-OUTPUT_CHARACTERS);
  return all ? `<system-out>${text(all)}</system-out>` : "";
}

// A reporter of Jest's. What it writes is well-formed XML after each write.
class Report {
  constructor() {
    this.file = fs.openSync(process.env[JUNIT], "w");
    this.end = 0;
    this.put(HEAD, true);
  }

  put(xml, isFinal) {
    fs.ftruncateSync(this.file, this.end);
    fs.writeSync(this.file, xml + TAIL, this.end);
    this.end += isFinal ? Buffer.byteLength(xml) : 0;
  }

  onTestFileStart(test) {
    // The coordinator knows how long that took.
    const why = "the runner ended while this file ran";
    this.put(testcase(test.path, undefined, `<error type="${RUNNER_ENDED}" message=${attribute(why)}/>`), false);
  }

  onTestFileResult(test, result) {
    const seconds = (result.perfStats.end - result.perfStats.start) / 1000;
    this.put(testcase(test.path, seconds, verdict(result) + output(result)), true);
  }
}

// The command that starts Jest and its arguments, as words.
function words(given) {
  const isInstalled = given.length > 0 && given[0] === "jest" && fs.existsSync(INSTALLED);
  return isInstalled ? [INSTALLED, ...given.slice(1)] : given;
}

function cannotStart(program, error) {
  process.stderr.write(`${program} cannot be started (${error.code}): use an image that has Jest, or let the job's ` +
    "inputs have `node_modules`\n");
  return 127;
}

function list(...given) {
  const [program, ...rest] = words(given);
  const options = { encoding: "utf8", maxBuffer: Infinity, stdio: ["ignore", "pipe", "inherit"] };
  const jest = spawnSync(program, [...rest, "--listTests", "--json"], options);
  if (jest.error) return cannotStart(program, jest.error);
  if (jest.status !== 0) {
    process.stderr.write(jest.stdout);
    return jest.status === null ? 1 : jest.status;
  }
  // A configuration may print something of its own before.
  const found = jest.stdout.split("\n").reverse().find((line) => line.startsWith("["));
  const ids = JSON.parse(found || "[]").map(id).sort();
  if (ids.some((name) => name.includes("\n"))) {
    process.stderr.write("the name of a test file has a newline in it; rename it\n");
    return 1;
  }
  process.stdout.write(ids.map((name) => `${name}\n`).join(""));
  return 0;
}

// Says of the file that ran last, if it did not end, that its time was over.
function blameTime(junit, seconds) {
  const report = fs.readFileSync(junit, "utf8");
  const begin = report.lastIndexOf(`<error type="${RUNNER_ENDED}"`);
  const end = `</testcase>\n${TAIL}`;
  if (begin < 0 || report.indexOf("</testcase>", begin) !== report.length - end.length) return;
  const error = `<error type="${RUNNER_TIMED_OUT}" message="it still ran when ${seconds} s were over, the job's timeout"/>`;
  fs.writeFileSync(junit, report.slice(0, begin) + error + end);
}

function run(junit, seconds, ...given) {
  const wanted = fs.readFileSync(given.pop().slice(1), "utf8").split("\n").slice(0, -1);
  const files = wanted.map((name) => path.resolve(name));
  const [program, ...rest] = words(given);
  const own = ["--ci", "--coverage=false", "--runInBand", `--reporters=${__filename}`, "--runTestsByPath"];
  fs.mkdirSync(path.dirname(path.resolve(junit)), { recursive: true });
  fs.writeFileSync(junit, HEAD + TAIL);
  const environment = { ...process.env, [JUNIT]: path.resolve(junit) };
  const options = { detached: true, env: environment, stdio: ["ignore", "inherit", "inherit"] };
  const jest = spawn(program, [...rest, ...own, ...files], options);
  // A test that never yields keeps Jest's own clock from running: each write to the report winds up this one.
  let isOver = false;
  const expire = () => {
    isOver = true;
    process.kill(-jest.pid, "SIGKILL");
  };
  let clock = setTimeout(expire, seconds * 1000);
  const watcher = fs.watch(junit, () => {
    clearTimeout(clock);
    clock = setTimeout(expire, seconds * 1000);
  });
  const end = (code) => {
    clearTimeout(clock);
    watcher.close();
    if (isOver) blameTime(junit, seconds);
    process.exitCode = code;
  };
  jest.on("error", (error) => end(cannotStart(program, error)));
  jest.on("exit", (code) => end(code === null ? 1 : code));
}

if (require.main === module) {
  const [what, ...given] = process.argv.slice(2);
  if (what === "list") process.exitCode = list(...given);
  else run(...given);
} else {
  module.exports = Report;
}
