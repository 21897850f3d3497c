package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// event is one line of "go test -json" (cmd/test2json).
type event struct {
	Time       time.Time
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// test is what is known of one test, or of a package, whose name is empty.
type test struct {
	pkg, name string
	began     time.Time // when it last began or went on
	parallel  bool      // it waited for its turn beside others
	took      time.Duration
	waits     bool // its time is that of cases that run beside others
	ended     bool
	output    []string
}

// report collects the results of suites. Its methods may be called concurrently.
type report struct {
	out     io.Writer
	verbose bool

	mu      sync.Mutex // guards all below
	tests   map[[2]string]*test
	failed  bool
	skipped int
	said    []string // what failed, in short
}

// repeated is how many of the lines of a failed test stand once more at the end.
const repeated = 6

func newReport(out io.Writer, verbose bool) *report {
	return &report{out: out, verbose: verbose, tests: map[[2]string]*test{}}
}

// read takes in the output of one "go test -json" to its end. Lines that are none of its events are passed on.
func (r *report) read(in io.Reader) {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		switch {
		case len(line) > 0 && json.Unmarshal(line, &e) == nil && e.Action != "":
			r.note(e)
		case len(line) > 0:
			r.print("%s", line)
		}
		if err != nil {
			return
		}
	}
}

func (r *report) print(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, format, args...)
}

// fail notes in a few words that something failed.
func (r *report) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failLocked(fmt.Sprintf(format, args...))
}

func (r *report) failLocked(what string) {
	r.failed = true
	r.said = append(r.said, what)
}

// failures prints in short what failed. It comes last, for those who see only the end of the output.
func (r *report) failures() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range r.said {
		fmt.Fprint(r.out, text)
	}
}

func (r *report) passed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.failed
}

// note takes in one event.
func (r *report) note(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Action == "build-output" {
		fmt.Fprint(r.out, e.Output)
		return
	}
	if e.Action == "build-fail" {
		r.failLocked(fmt.Sprintf("%s does not build\n", e.ImportPath))
		return
	}
	t := r.testLocked(e.Package, e.Test)
	switch e.Action {
	case "run", "start", "cont":
		t.began = e.Time
	case "pause":
		r.pauseLocked(t, e.Time)
	case "output":
		t.output = append(t.output, e.Output)
	case "pass", "fail", "skip":
		r.endLocked(t, e)
	}
}

func (r *report) testLocked(pkg, name string) *test {
	key := [2]string{pkg, name}
	t := r.tests[key]
	if t == nil {
		t = &test{pkg: pkg, name: name}
		r.tests[key] = t
	}
	return t
}

// pauseLocked notes that a test waits for its turn. From the last time that one of its cases does so, a test that has
// cases waits for them.
func (r *report) pauseLocked(t *test, at time.Time) {
	t.parallel = true
	i := strings.LastIndexByte(t.name, '/')
	if i < 0 {
		return
	}
	parent := r.testLocked(t.pkg, t.name[:i])
	parent.waits, parent.took = true, at.Sub(parent.began)
}

func (r *report) endLocked(t *test, e event) {
	t.ended = true
	if !t.waits {
		t.took = time.Duration(e.Elapsed * float64(time.Second))
	}
	if e.Action == "skip" {
		r.skipped++
	}
	if e.Action == "fail" {
		r.failLocked(t.summary())
	}
	switch {
	case t.name == "":
		r.packageLocked(t, e)
	case e.Action == "fail":
		fmt.Fprintf(r.out, "--- FAIL: %s %s (%s)\n%s", t.pkg, t.name, t.took.Round(10*time.Millisecond),
			strings.Join(t.output, ""))
	case r.verbose:
		fmt.Fprintf(r.out, "%-4s %8s  %s\n", e.Action, t.took.Round(10*time.Millisecond), t.name)
	}
	t.output = nil
}

// summary returns the name of a test or package that failed, and the last of its own words.
func (t *test) summary() string {
	var own []string
	for _, line := range t.output {
		word := strings.TrimSpace(line)
		if word != "" && !strings.HasPrefix(word, "=== ") && !strings.HasPrefix(word, "--- ") &&
			!strings.HasPrefix(word, "FAIL") {
			own = append(own, "\t"+word+"\n")
		}
	}
	name := fmt.Sprintf("failed: %s %s\n", t.pkg, t.name)
	return name + strings.Join(own[max(0, len(own)-repeated):], "")
}

// packageLocked prints the line of a package, and before it what the package itself and tests that have not ended have
// said.
func (r *report) packageLocked(p *test, e event) {
	words := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "?   "}
	if e.Action == "fail" {
		var names []string
		for key, t := range r.tests {
			if key[0] == p.pkg && t.name != "" && len(t.output) > 0 {
				names = append(names, t.name)
			}
		}
		slices.Sort(names)
		for _, name := range append(names, "") {
			fmt.Fprint(r.out, strings.Join(r.tests[[2]string{p.pkg, name}].output, ""))
		}
	}
	fmt.Fprintf(r.out, "%s %s %.1fs\n", words[e.Action], p.pkg, e.Elapsed)
}

// units returns the tests and those of their cases that run beside others, the slowest first. Other cases are part of
// their test.
func (r *report) units() []*test {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*test
	for _, t := range r.tests {
		if t.name != "" && t.ended && (t.parallel || !strings.Contains(t.name, "/")) {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b *test) int {
		if a.took != b.took {
			return int(b.took - a.took)
		}
		return strings.Compare(a.pkg+a.name, b.pkg+b.name)
	})
	return out
}

// slowest prints the slowest tests.
func (r *report) slowest(n int) {
	units := r.units()
	if n = min(n, len(units)); n == 0 {
		return
	}
	r.print("\nThe %d slowest of %d tests (%d skipped):\n", n, len(units), r.skipped)
	for _, t := range units[:n] {
		r.print("%7.1f s  %s  %s\n", t.took.Seconds(), t.pkg, t.name)
	}
}

// explained reports whether every test that took longer than most says why in its comment, and notes those that do not.
func (r *report) explained(root fs.FS, most time.Duration) bool {
	ok := true
	for _, t := range r.units() {
		if most == 0 || t.took <= most {
			break
		}
		function, _, _ := strings.Cut(t.name, "/")
		if reason(root, t.pkg, function) == "" {
			ok = false
			r.fail("%s %s took %s, more than %s: make it faster, or say why in the comment of %s, in a line that starts "+
				"with \"Slow:\"\n",
				t.pkg, t.name, t.took.Round(time.Second), most, function)
		}
	}
	return ok
}

// reason returns what the comment of a test function gives as the reason for the time that it takes. The folder of a
// package is its import path without the name of the module, also in nested modules.
func reason(root fs.FS, pkg, function string) string {
	_, dir, ok := strings.Cut(pkg, "/")
	if !ok {
		dir = "."
	}
	files, _ := fs.Glob(root, path.Join(dir, "*_test.go"))
	for _, name := range files {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			continue
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == function && f.Recv == nil {
				return slow(f.Doc.Text())
			}
		}
	}
	return ""
}

func slow(comment string) string {
	for line := range strings.Lines(comment) {
		if text, ok := strings.CutPrefix(line, "Slow:"); ok {
			return strings.TrimSpace(text)
		}
	}
	return ""
}
