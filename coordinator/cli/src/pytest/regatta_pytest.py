"""Speaks for pytest to Regatta: lists its tests, or runs those that it is given and writes JUnit XML.

    regatta_pytest.py list [ARGUMENT ...]
    regatta_pytest.py run JUNIT SECONDS [ARGUMENT ...] @FILE
    regatta_pytest.py serve [ARGUMENT ...]

The arguments are pytest's. Listing leaves the byte code of the project's modules below BYTE_CODE. FILE has a test's
node id on each line. SECONDS is how long a test may take, 0 for as long as it likes. To serve is to find the tests once
and then do what the other two would, as often as it is asked to: a request is a line of JSON on standard input, with
such a command in `arguments`, and its response one on standard output (Bazel's protocol for persistent workers). The report is whole at any moment, so that a test which ends the process is
reported as the one that ran, after those before it.
"""

import faulthandler
import glob
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
# As they are before any test puts others in their place.
from _thread import allocate_lock, start_new_thread
from types import ModuleType
from xml.sax.saxutils import escape, quoteattr

if __name__ == "__main__":
    # As `python3 -m pytest` has it: the directory that tests run in, not that of this file.
    sys.path[0] = os.getcwd()
try:
    import pytest
except ImportError as error:
    if importlib.util.find_spec("pytest") is None:
        sys.exit(f"{sys.executable} has no pytest ({error}): use an image that has it, and what the tests import")
    sys.exit(f"{sys.executable} cannot load its pytest: {error}")

# How much of each stream a test's case repeats, in characters.
OUTPUT_CHARACTERS = 16 * 1024
# How much of a failure.
FAILURE_CHARACTERS = 64 * 1024
# What XML cannot express.
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Where byte code is left, each file below its path from here.
BYTE_CODE = ".regatta/bytecode"
# Beside it: where that was, and which files there are.
BYTE_CODE_OF = ".regatta/bytecode-of"
# More of it, in bytes, is not worth what it costs to keep.
BYTE_CODE_BYTES = 256 * 1024 * 1024
# What says that a test ended its runner.
RUNNER_ENDED = "regatta.runner-ended"
# The same because its time was over.
RUNNER_TIMED_OUT = "regatta.runner-timed-out"
# What says that a test ran out of time, and its runner went on.
TIMED_OUT = "regatta.timed-out"
# How much longer a test may take that keeps Python's own threads from running, in seconds.
GRACE = 1
# pytest's exit code for a run without tests.
NO_TESTS = 5
# Where a session's end can be seen.
ENDS = [
    "pytest_cmdline_main", "pytest_runtestloop", "pytest_sessionfinish", "pytest_terminal_summary", "pytest_unconfigure",
]
# What does nothing in the end of a session that could make it fail: packages.
HARMLESS_ENDS = {
    "_hypothesis_pytestplugin", "_pytest", "anyio", "hypothesis", "pytest_asyncio", "pytest_rerunfailures",
    "pytest_timeout", "xdist",
}


def printable(text):
    return NOT_XML.sub("\ufffd", text)


def attribute(text):
    return quoteattr(printable(text))


class Listing:
    """Keeps the ids of the tests that were found."""

    def __init__(self):
        self.tests = []

    def pytest_collectreport(self, report):
        # A module that is skipped as it is loaded is a skipped test to pytest; none of its own is known. If doctests
        # are collected, too, it is loaded, and told of, twice.
        if report.skipped and report.nodeid not in self.tests:
            self.tests.append(report.nodeid)

    def pytest_collection_finish(self, session):
        self.tests += [item.nodeid for item in session.items]


class Report:
    """A JUnit file that is well-formed after each write."""

    HEAD = b'<?xml version="1.0" encoding="utf-8"?>\n<testsuites><testsuite name="pytest">\n'
    TAIL = b"</testsuite></testsuites>\n"

    def __init__(self, path):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        self.file = open(path, "wb")
        self.file.write(self.HEAD)
        self.end = len(self.HEAD)
        self.put("")

    def put(self, case, is_final=True):
        data = case.encode("utf-8")
        self.file.seek(self.end)
        self.file.write(data + self.TAIL)
        self.file.truncate()
        self.file.flush()
        if is_final:
            self.end += len(data)


class Runner:
    """Runs the tests that are wanted and no other, and reports each."""

    def __init__(self, wanted, report, seconds):
        self.wanted = set(wanted)
        self.files = list(dict.fromkeys(test.split("::", 1)[0] for test in wanted))
        self.report = report
        self.seconds = seconds
        self.test = None
        self.phases = []
        # Of pytest-rerunfailures: failures after which the test runs again. It may begin and finish each time.
        self.reruns = []
        self.is_rerun = False
        self.skipped_modules = set()
        # A test may fork, and its child come back from it.
        self.process = os.getpid()
        # Released at the end of the test that runs, and taken by whoever says how it ended.
        self.ended = self.told = None
        # pytest has a test's error output captured; this is where nobody captures anything.
        self.errors = os.fdopen(os.dup(2), "w")

    def pytest_configure(self, config):
        # To load only the files that have wanted tests, if ids begin with files at all.
        root = str(getattr(config, "rootpath", None) or config.rootdir)
        paths = [os.path.join(root, file) for file in self.files]
        if all(map(os.path.exists, paths)):
            config.args[:] = paths

    def pytest_sessionstart(self, session):
        """Learns of tests for which pytest-timeout ends the process: its method "thread" calls no hook before."""
        plugin = sys.modules.get("pytest_timeout")
        end = getattr(plugin, "timeout_timer", None)
        if end is None:
            return

        def tell_and_end(item, limit):
            told = self.told if item.nodeid == self.test else None
            is_first = told is not None and told.acquire(False)
            if is_first:
                # Later releases give all their settings.
                why = f"it still ran when the {getattr(limit, 'timeout', limit):g} s that pytest-timeout has for it were over"
                self.report.put(ending(item.nodeid, RUNNER_TIMED_OUT, why), False)
            end(item, limit)
            # It leaves a test alone that is being debugged.
            if is_first:
                told.release()

        plugin.timeout_timer = tell_and_end

    def pytest_collectreport(self, report):
        if report.skipped and report.nodeid in self.wanted and report.nodeid not in self.skipped_modules:
            self.skipped_modules.add(report.nodeid)
            self.report.put(f'<testcase name={attribute(report.nodeid)} time="0">{skip(report)}</testcase>\n')
        if report.failed:
            # A file that cannot be loaded is no test's failure, whatever becomes of its tests another time.
            self.report.put(failure("error", [report]) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        others = [item for item in items if item.nodeid not in self.wanted]
        items[:] = [item for item in items if item.nodeid in self.wanted]
        if others:
            config.hook.pytest_deselected(items=others)

    def pytest_runtest_logstart(self, nodeid):
        if nodeid != self.test:
            self.test = nodeid
            self.reruns = []
        # The coordinator knows how long that took.
        self.report.put(ending(nodeid, RUNNER_ENDED, "the runner ended while this test ran"), False)
        self.ended, self.told = allocate_lock(), allocate_lock()
        if self.seconds:
            faulthandler.dump_traceback_later(self.seconds + GRACE, exit=True, file=self.errors)
            self.ended.acquire()
            start_new_thread(self.wait_for, (nodeid, self.ended, self.told))

    def wait_for(self, nodeid, ended, told):
        """Ends the process if a test does not end in time: nothing else would stop whatever it does."""
        if ended.acquire(True, self.seconds) or not told.acquire(False):
            return
        why = f"it still ran when {self.seconds:g} s were over, the job's timeout"
        self.report.put(ending(nodeid, RUNNER_TIMED_OUT, why))
        self.errors.write(f"{nodeid} still ran when {self.seconds:g} s were over:\n")
        self.errors.flush()
        faulthandler.dump_traceback(file=self.errors)
        os._exit(1)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, call):
        if os.getpid() != self.process:
            # The tests, their report and whoever asks for them are the parent's.
            os._exit(1 if call.excinfo else 0)
        outcome = yield
        report = outcome.get_result()
        report.regatta_timed_out = call.excinfo is not None and is_out_of_time(call.excinfo.tb)

    def pytest_runtest_logreport(self, report):
        if report.when == "setup":
            self.phases = []
            self.is_rerun = False
        if report.outcome == "rerun":
            self.is_rerun = True
            self.reruns.append(report)
        else:
            self.phases.append(report)

    def pytest_runtest_logfinish(self, nodeid):
        # A clock may be quicker, and ends the process.
        self.told.acquire()
        if self.seconds:
            self.ended.release()
            faulthandler.cancel_dump_traceback_later()
        if not self.is_rerun:
            self.report.put(case(nodeid, self.phases, self.reruns))


def is_out_of_time(traceback):
    """Whether what a test ended with was raised by pytest-timeout."""
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") == "pytest_timeout":
            return True
        traceback = traceback.tb_next
    return False


def ending(nodeid, kind, why):
    error = f'<error type="{kind}" message={attribute(why)}/>'
    return f"<testcase name={attribute(nodeid)}>{error}</testcase>\n"


def case(nodeid, phases, reruns):
    time = sum(phase.duration for phase in phases)
    failed = [phase for phase in phases if phase.failed]
    inside = failure("failure", failed) if failed else "".join(map(skip, phases))
    if reruns:
        inside = failure("flakyFailure", reruns) + inside
    # Those of the last phase are those of all of them.
    for name, text in [("out", phases[-1].capstdout), ("err", phases[-1].capstderr)] if phases else []:
        if text:
            inside += f"<system-{name}>{escape(printable(text[-OUTPUT_CHARACTERS:]))}</system-{name}>"
    return f'<testcase name={attribute(nodeid)} time="{time:.6f}">{inside}</testcase>\n'


def failure(element, phases):
    first = phases[0]
    crash = getattr(first.longrepr, "reprcrash", None)
    message = crash.message if crash else first.longreprtext.strip().rpartition("\n")[2]
    message = message.partition("\n")[0]
    if first.when != "call":
        message = f"{first.when}: {message}"
    text = "\n".join(phase.longreprtext[-FAILURE_CHARACTERS:] for phase in phases)
    kind = f' type="{TIMED_OUT}"' if getattr(first, "regatta_timed_out", False) else ""
    return f"<{element}{kind} message={attribute(message)}>{escape(printable(text))}</{element}>"


def skip(phase):
    if not phase.skipped:
        return ""
    reason = getattr(phase, "wasxfail", None)
    if reason is not None:
        reason = f"expected failure: {reason}".rstrip(": ")
    else:
        is_place = isinstance(phase.longrepr, tuple)
        reason = phase.longrepr[2] if is_place else phase.longreprtext
        reason = reason[len("Skipped: "):] if reason.startswith("Skipped: ") else reason
    return f"<skipped message={attribute(reason)}/>"


def serially(arguments):
    """This is one worker of many already, and it must come to every test."""
    is_parallel = importlib.util.find_spec("xdist") is not None
    return [*arguments, "--maxfail=0", *(["-n0"] if is_parallel else [])]


def keep_byte_code():
    """Copies the byte code of this project's loaded modules, with that of pytest, which compiles tests its own way."""
    here = os.path.join(os.getcwd(), "")
    files = [vars(module).get("__file__") for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    files = {file for file in files if isinstance(file, str) and file.startswith(here)}
    folders = {os.path.join(os.path.dirname(file), "__pycache__") for file in files}
    compiled = [file for folder in sorted(folders) for file in glob.glob(os.path.join(glob.escape(folder), "*.pyc"))]
    os.makedirs(BYTE_CODE, exist_ok=True)
    if sum(map(os.path.getsize, compiled)) > BYTE_CODE_BYTES:
        return
    names = [os.path.relpath(file, here) for file in compiled]
    for file, name in zip(compiled, names):
        copy = os.path.join(BYTE_CODE, name)
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        shutil.copyfile(file, copy)
    note = os.path.join(BYTE_CODE, BYTE_CODE_OF)
    os.makedirs(os.path.dirname(note), exist_ok=True)
    with open(note, "w", encoding="utf-8") as file:
        json.dump({"directory": os.getcwd(), "files": names}, file)


def forget_byte_code_of_elsewhere():
    """That of tests says where their sources were: what fails in them could not be shown from here."""
    if not os.path.exists(BYTE_CODE_OF):
        return
    with open(BYTE_CODE_OF, encoding="utf-8") as file:
        note = json.load(file)
    if note["directory"] != os.getcwd():
        for name in filter(os.path.exists, note["files"]):
            os.unlink(name)


def protocol_output():
    """Standard output as it is. Whatever modules and tests print there goes to standard error from now on."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return output


def listed(tests, errors):
    """The listing of these tests, or why there can be none."""
    if any("\n" in test for test in tests):
        print("a test's id has a newline in it; give its parameters other ids", file=errors, flush=True)
        return None
    try:
        keep_byte_code()
    except Exception as error:
        # It is worth time alone.
        print(f"byte code is not kept: {error}", file=errors, flush=True)
    return "".join(f"{test}\n" for test in tests)


def list_tests(arguments):
    listing = Listing()
    # An image may say that it should stay small. Here nothing of it does.
    sys.dont_write_bytecode = False
    output = protocol_output()
    code = pytest.main([*serially(arguments), "--collect-only", "-qq"], plugins=[listing])
    if code not in (0, NO_TESTS):
        return code
    text = listed(listing.tests, sys.stderr)
    if text is None:
        return 1
    with output:
        output.write(text)
    return 0


def read_wanted(file):
    with open(file[1:], encoding="utf-8") as wanted:
        return wanted.read().split("\n")[:-1]


def run_tests(junit, seconds, *arguments):
    *arguments, file = arguments
    forget_byte_code_of_elsewhere()
    runner = Runner(read_wanted(file), Report(junit), float(seconds))
    code = pytest.main(serially(arguments), plugins=[runner])
    return 0 if code == NO_TESTS and runner.skipped_modules else code


def has_own_end(config, ours):
    """Whether a project or a plugin has its say at the end of each session, and may fail it."""
    here = os.path.join(os.getcwd(), "")
    for name in ENDS:
        for impl in getattr(config.hook, name).get_hookimpls():
            module = impl.function.__module__
            file = getattr(sys.modules.get(module), "__file__", None) or ""
            is_known = module.partition(".")[0] in HARMLESS_ENDS and not os.path.abspath(file).startswith(here)
            if impl.plugin is not ours and not is_known:
                return True
    return False


class Server(Runner):
    """Does what it is asked for with the tests that were found.

    Where somebody has a say at the end of each session, every request has a session, and a process, of its own.
    """

    def __init__(self, requests, responses):
        super().__init__([], None, 0)
        self.requests = requests
        self.responses = responses
        self.listing = Listing()
        self.directory = os.getcwd()
        # Whether each request has a session of its own.
        self.is_apart = False
        # Modules that are skipped as they are loaded.
        self.skipped = {}

    def pytest_configure(self, config):
        """Every file is loaded."""

    def pytest_collectreport(self, report):
        self.listing.pytest_collectreport(report)
        if report.skipped:
            self.skipped[report.nodeid] = report

    def pytest_collection_modifyitems(self, config, items):
        """Every test is kept."""

    def pytest_collection_finish(self, session):
        self.listing.pytest_collection_finish(session)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        if session.testsfailed:
            raise session.Interrupted("not every test can be found")
        self.is_apart = has_own_end(session.config, self)
        if not self.is_apart:
            self.serve(lambda what, arguments: self.here(session, what, arguments))
        return True

    def serve(self, answer):
        for line in self.requests:
            # Wherever tests have gone.
            os.chdir(self.directory)
            request = json.loads(line)
            what, *arguments = request["arguments"][2:]
            code, output = answer(what, arguments)
            response = {"exitCode": code, "output": output, "requestId": request.get("requestId", 0)}
            self.responses.write(json.dumps(response) + "\n")
            self.responses.flush()

    def here(self, session, what, arguments):
        if what == "list":
            output = listed(self.listing.tests, self.errors)
            return (1, "") if output is None else (0, output)
        return self.run(session, *arguments), ""

    def apart(self, what, arguments):
        command = [sys.executable, os.path.abspath(__file__), what, *arguments]
        output = subprocess.PIPE if what == "list" else self.errors
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=self.errors)
        # As shells say it of a process that a signal ended.
        code = ended.returncode if ended.returncode >= 0 else 128 - ended.returncode
        return code, (ended.stdout or b"").decode("utf-8", "replace")

    def run(self, session, junit, seconds, *arguments):
        wanted = read_wanted(arguments[-1])
        self.wanted = set(wanted)
        self.skipped_modules = set()
        self.report = Report(junit)
        self.seconds = float(seconds)
        self.test = None
        skipped = [self.skipped[test] for test in wanted if test in self.skipped]
        for report in skipped:
            super().pytest_collectreport(report)
        items = [item for item in session.items if item.nodeid in self.wanted]
        failed = session.testsfailed
        # The last has no next one: whatever fixtures made for these tests goes with them.
        for item, following in zip(items, [*items[1:], None]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        if not items and not skipped:
            return NO_TESTS
        return 1 if session.testsfailed > failed else 0


def serve(arguments):
    sys.dont_write_bytecode = False
    forget_byte_code_of_elsewhere()
    # Tests have nothing to read.
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    server = Server(requests, protocol_output())
    code = pytest.main(serially(arguments), plugins=[server])
    if server.is_apart:
        # The session has ended, with whatever it holds.
        server.serve(server.apart)
    return code


# Processes that tests spawn load this module, too.
if __name__ == "__main__":
    what = {
        "list": lambda *arguments: list_tests(arguments),
        "run": run_tests,
        "serve": lambda *arguments: serve(arguments),
    }[sys.argv[1]]
    sys.exit(int(what(*sys.argv[2:])))
