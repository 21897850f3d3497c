// Package flanneld holds the tests of the project's structure.
package flanneld

import (
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

const module = "flanneld"

// rule says what the packages below one folder may import beside the standard library: packages of ours, and modules of
// others by the beginning of their path.
type rule struct {
	ours, others []string
	all          bool // no limits
}

// rules is the table of docs/architecture.md. The longest folder that fits counts.
var rules = map[string]rule{
	"":             {},
	"api":          {},
	"cmd/flanneld": {all: true},
	"doctor":       {ours: []string{"api", "ip", "probe", "redact", "subnet"}},
	"cmd/flannelctl": {
		ours: []string{
			"api", "backend/check", "backend/wireguard/options",
			"doctor", "firewall", "ip", "options", "probe", "redact", "subnet",
			"subnet/annotation", "subnet/etcdv3", "version",
		},
		others: []string{"github.com/spf13/", "go.yaml.in/yaml/v2"},
	},
	"probe":      {},
	"sorted":     {},
	"devicelock": {ours: []string{"retry", "subnet"}, others: []string{"github.com/prometheus/procfs"}},
	"forwarding": {ours: []string{"ip"}},
	"retry":      {},
	"version":    {},
	"trigger":    {},
	"source": {
		ours: []string{
			"api", "backend/alloc", "backend/check", "backend/vxlan", "ip", "options", "subnet", "subnet/etcdv3",
			"subnet/etcdv3/authority", "subnet/etcdv3/embedded", "subnet/etcdv3/join", "subnet/etcdv3/member", "subnet/keeper",
			"subnet/kube", "trigger",
		},
		others: []string{"golang.org/x/sync/errgroup"},
	},
	"publish": {ours: []string{"ip", "subnet", "trigger"}},
	"drain":   {ours: []string{"api", "ip", "subnet"}},
	"rejoin":  {ours: []string{"api", "drain", "retry", "subnet", "subnet/keeper"}},
	"process": {ours: []string{"options"}},
	"status": {
		ours:   []string{"api", "backend", "firewall", "ip", "probe", "redact", "subnet", "systemd"},
		others: []string{"golang.org/x/time/rate"},
	},
	"firewall": {
		ours: []string{"ip", "sorted", "subnet"},
		others: []string{"github.com/google/nftables", "github.com/mdlayher/netlink", "golang.org/x/sync/errgroup",
			"golang.org/x/sys/"},
	},
	"firewall/foreign": {},
	"serve": {
		ours: []string{"api", "ip", "probe", "subnet", "version"}, others: []string{"github.com/prometheus/"},
	},
	"options":       {ours: []string{"redact", "subnet", "subnet/annotation"}},
	"redact":        {},
	"systemd":       {ours: []string{"trigger"}, others: []string{"github.com/coreos/go-systemd/"}},
	"underlay":      {ours: []string{"ip", "trigger"}},
	"subnet":        {ours: []string{"sorted"}},
	"subnet/keeper": {ours: []string{"subnet", "trigger"}},
	"subnet/etcdv3": {ours: []string{"subnet"},
		others: []string{"go.etcd.io/", "go.uber.org/zap", "google.golang.org/grpc"}},
	"subnet/etcdv3/member": {ours: []string{"subnet"},
		others: []string{"go.etcd.io/", "go.uber.org/zap", "google.golang.org/grpc"}},
	"subnet/etcdv3/authority": {ours: []string{"subnet"}},
	"subnet/etcdv3/join": {ours: []string{"subnet", "subnet/etcdv3/authority"},
		others: []string{"go.etcd.io/", "go.uber.org/zap", "google.golang.org/grpc", "golang.org/x/time/rate"}},
	"subnet/etcdv3/embedded": {ours: []string{
		"retry", "serve", "subnet", "subnet/etcdv3/authority", "subnet/etcdv3/join", "subnet/etcdv3/member", "trigger",
	}},
	"subnet/annotation": {ours: []string{"subnet"}},
	"subnet/kube": {ours: []string{"subnet", "subnet/annotation", "trigger"},
		others: []string{"k8s.io/", "github.com/go-logr/logr", "golang.org/x/time/rate"}},
	"subnet/subnettest": {ours: []string{"subnet"}},
	"backend": {ours: []string{"backend/skip", "ip", "subnet", "trigger"},
		others: []string{"golang.org/x/time/rate"}},
	"backend/check": {
		ours: []string{
			"backend/extension/options", "backend/ipip/options", "backend/udp/options", "backend/vxlan/options",
			"backend/wireguard/options", "subnet",
		},
	},
	"backend/registry": {
		ours: []string{
			"backend", "backend/alloc", "backend/check", "backend/extension", "backend/hostgw", "backend/ipip", "backend/udp",
			"backend/vxlan", "backend/wireguard", "backend/wireguard/options", "devicelock", "ip", "retry", "subnet",
		},
	},
	"backend/backendtest": {
		ours: []string{"backend", "ip", "ip/iptest", "subnet"}, others: []string{"github.com/google/go-cmp/cmp"},
	},
	"backend/skip":      {ours: []string{"ip", "subnet"}},
	"backend/reach":     {ours: []string{"ip", "subnet"}},
	"backend/vxlan":     {ours: []string{"backend", "backend/reach", "ip", "sorted", "subnet"}},
	"backend/extension": {ours: []string{"backend", "ip", "subnet"}},
	"backend/ipip":      {ours: []string{"backend", "backend/reach", "ip", "subnet"}},
	"backend/hostgw":    {ours: []string{"backend", "backend/reach", "ip", "subnet"}},
	"backend/alloc":     {ours: []string{"backend", "ip", "subnet"}},
	"backend/udp": {
		ours:   []string{"backend", "backend/skip", "backend/udp/offload", "ip", "sorted", "subnet"},
		others: []string{"golang.org/x/sys/", "golang.org/x/time/rate", "github.com/coreos/go-systemd/"},
	},
	"backend/udp/offload": {ours: []string{"ip"}, others: []string{"github.com/cilium/ebpf"}},
	"backend/wireguard": {
		ours:   []string{"backend", "backend/skip", "ip", "subnet", "trigger"},
		others: []string{"golang.org/x/sys/", "golang.zx2c4.com/wireguard/"},
	},
	"ip":        {ours: []string{"sorted"}, others: []string{"github.com/vishvananda/netlink", "golang.org/x/sys/"}},
	"ip/iptest": {ours: []string{"ip"}, others: []string{"golang.org/x/sys/"}},
	"cni-plugin": {
		ours: []string{"subnet", "cni-plugin", "version"}, others: []string{"github.com/containernetworking/cni"},
	},
	"lab":  {all: true},
	"dist": {all: true},
	"hack": {all: true},
}

// kernelCallers are the folders whose files may make system calls that reach the kernel's network.
var kernelCallers = []string{"ip", "firewall", "backend/udp", "backend/wireguard", "lab", "cmd/flannelctl", "hack"}

// source is one parsed file.
type source struct {
	path string // slash-separated, from the root
	file *ast.File
	text []byte
	at   *token.FileSet // knows the lines
}

func (s source) folder() string {
	if dir := path.Dir(s.path); dir != "." {
		return dir
	}
	return ""
}

func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// sources reads the files of this module; nested modules have structures of their own.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "build" || d.Name() == "testdata" || isModule(p)) {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(p) != ".go" {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		at := token.NewFileSet()
		file, err := parser.ParseFile(at, p, text, parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, source{filepath.ToSlash(p), file, text, at})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// ruleOf returns the rule of the nearest folder above; that of the root is for the root alone.
func ruleOf(folder string) (rule, bool) {
	for at := folder; ; at = parent(at) {
		if r, ok := rules[at]; ok {
			return r, at != "" || folder == ""
		}
	}
}

func parent(folder string) string {
	if i := strings.LastIndexByte(folder, '/'); i >= 0 {
		return folder[:i]
	}
	return ""
}

// within reports whether a package lies in or below one of the folders.
func within(folder string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return folder == f || strings.HasPrefix(folder, f+"/") })
}

func imports(f *ast.File) []string {
	var out []string
	for _, spec := range f.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		out = append(out, name)
	}
	return out
}

func TestPackagesImportOnlyWhatTheDesignAllows(t *testing.T) {
	for _, s := range sources(t) {
		r, ok := ruleOf(s.folder())
		if !ok {
			t.Errorf("%s: the table of packages does not name its folder", s.path)
			continue
		}
		if s.isTest() || r.all {
			continue
		}
		for _, name := range imports(s.file) {
			if reason := r.refuses(s.folder(), name); reason != "" {
				t.Errorf("%s imports %s: %s", s.path, name, reason)
			}
		}
	}
}

// refuses says why a package in the folder may not import name.
func (r rule) refuses(folder, name string) string {
	first, _, _ := strings.Cut(name, "/")
	switch {
	case name == module || strings.HasPrefix(name, module+"/"):
		other := strings.TrimPrefix(strings.TrimPrefix(name, module), "/")
		if other == folder || folder != "backend" && strings.HasPrefix(other, folder+"/") || slices.Contains(r.ours, other) {
			return ""
		}
		return "not in the table of packages"
	case strings.Contains(first, "."):
		if slices.ContainsFunc(r.others, func(p string) bool { return strings.HasPrefix(name, p) }) {
			return ""
		}
		return "not in the table of packages"
	}
	return ""
}

// flannelctl is installed on every host and must start at once: it links what it calls, not the daemon.
func TestFlannelctlLinksNeitherTheDaemonNorTheEtcdServer(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./cmd/flannelctl").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if len(deps) > 400 {
		t.Errorf("flannelctl links %d packages, want at most 400", len(deps))
	}
	for _, p := range deps {
		for _, never := range []string{"flanneld/lab", "flanneld/cmd/flanneld", "flanneld/subnet/etcdv3/member",
			"flanneld/subnet/etcdv3/join", "go.etcd.io/etcd/server", "go.etcd.io/bbolt"} {
			if p == never || strings.HasPrefix(p, never+"/") {
				t.Errorf("flannelctl links %s", p)
			}
		}
	}
}

func TestSystemCallsOfTheNetworkStayAtTheEdge(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest() || within(s.folder(), kernelCallers) &&
			(strings.HasSuffix(s.path, "_linux.go") ||
				within(s.folder(), []string{"lab", "ip/iptest", "firewall", "cmd/flannelctl"})) {
			continue
		}
		for _, name := range imports(s.file) {
			// x/sys/cpu asks the processor, not the kernel.
			if strings.HasPrefix(name, "golang.org/x/sys/") && name != "golang.org/x/sys/cpu" {
				t.Errorf("%s imports %s: kernel calls live in files named _linux.go of ip and of the backends udp and wireguard",
					s.path, name)
			}
		}
	}
}

// The daemon's command builds the parts and joins them. What decides is a package with tests.
func TestTheDaemonIsBuiltInFewLines(t *testing.T) {
	const most = 500
	total := 0
	for _, s := range sources(t) {
		if s.folder() == "cmd/flanneld" && !s.isTest() {
			total += strings.Count(string(s.text), "\n")
		}
	}
	if total > most {
		t.Errorf("cmd/flanneld has %d lines, at most %d", total, most)
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if !s.isTest() || s.folder() == "" {
			documented[s.folder()] = documented[s.folder()] || s.file.Doc != nil
		}
	}
	for folder, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment", folder)
		}
	}
}

func TestNoPackageIsNamedAfterNothing(t *testing.T) {
	for _, s := range sources(t) {
		if slices.Contains([]string{"pkg", "util", "utils", "common", "types", "helpers", "misc"}, path.Base(s.folder())) {
			t.Errorf("%s: the name of the folder says nothing", s.path)
		}
	}
}

// TestLinesAreNarrow holds lines to 120 columns. What stands in a raw string literal, a document of its own, may be
// wider.
func TestLinesAreNarrow(t *testing.T) {
	const most = 120
	for _, s := range sources(t) {
		raw := rawLines(s)
		for i, line := range strings.Split(string(s.text), "\n") {
			if n := utf8.RuneCountInString(line); n > most && !raw[i+1] {
				t.Errorf("%s:%d: %d columns, at most %d", s.path, i+1, n, most)
			}
		}
	}
}

// rawLines returns the lines that a raw string literal stands in.
func rawLines(s source) map[int]bool {
	lines, at := map[int]bool{}, s.at
	ast.Inspect(s.file, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING && l.Value[0] == '`' {
			for i := at.Position(l.Pos()).Line; i <= at.Position(l.End()).Line; i++ {
				lines[i] = true
			}
		}
		return true
	})
	return lines
}

// larger are the functions that may be larger than the others, each with the reason.
var larger = map[string]string{
	"cmd/flanneld join":      "joins the parts, in the order in which they need each other",
	"backend/udp putError":   "the fields of an ICMP message",
	"subnet/etcdv3 unary":    "the signature is that of gRPC",
	"subnet/etcdv3 streamed": "the signature is that of gRPC",
}

// TestFunctionsAreSmall holds functions to 60 lines, 5 parameters and 3 levels. Tests, the lab and what is built for
// releases are not counted.
func TestFunctionsAreSmall(t *testing.T) {
	const lines, parameters, levels = 60, 5, 3
	for _, s := range sources(t) {
		if s.isTest() || within(s.folder(), []string{"dist", "hack", "lab"}) {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil || larger[s.folder()+" "+f.Name.Name] != "" {
				continue
			}
			if n := s.at.Position(f.End()).Line - s.at.Position(f.Pos()).Line + 1; n > lines {
				t.Errorf("%s: %s has %d lines, at most %d", s.path, f.Name, n, lines)
			}
			if n := f.Type.Params.NumFields(); n > parameters {
				t.Errorf("%s: %s has %d parameters, at most %d", s.path, f.Name, n, parameters)
			}
			if n := nesting(f.Body); n > levels {
				t.Errorf("%s: %s has %d levels, at most %d", s.path, f.Name, n, levels)
			}
		}
	}
}

// nesting returns how deep statements stand in others, each function literal for itself.
func nesting(body ast.Node) (deepest int) {
	var stack []int // of the nodes that Inspect is in, their levels
	elseIf := map[ast.Node]bool{}
	ast.Inspect(body, func(n ast.Node) bool {
		if n == nil {
			stack = stack[:len(stack)-1]
			return true
		}
		level := 0
		if len(stack) > 0 {
			level = stack[len(stack)-1]
		}
		switch n := n.(type) {
		case *ast.IfStmt:
			elseIf[n.Else] = true
			if !elseIf[n] {
				level++
			}
		case *ast.ForStmt, *ast.RangeStmt, *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.SelectStmt:
			level++
		case *ast.FuncLit:
			level = 0
		}
		deepest = max(deepest, level)
		stack = append(stack, level)
		return true
	})
	return deepest
}

func TestFilesAreFormattedAndShort(t *testing.T) {
	const most = 400 // lines
	for _, s := range sources(t) {
		formatted, err := format.Source(s.text)
		if err != nil || string(formatted) != string(s.text) {
			t.Errorf("%s: not in the form of gofmt", s.path)
		}
		if lines := strings.Count(string(s.text), "\n"); lines > most && !s.isTest() {
			t.Errorf("%s: %d lines, at most %d", s.path, lines, most)
		}
	}
}
