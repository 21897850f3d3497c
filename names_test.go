package flanneld

import (
	"go/ast"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// unknownWords are words that no network engineer knows as terms, each with the one to use.
var unknownWords = map[string]string{
	"complain": "warn", "complaint": "problem", "crowd": "peers", "doubt": "invalidate", "doubts": "invalidated",
	"fate": "outcome", "fight": "conflict", "ghost": "stale", "haunt": "retain", "kin": "same", "lay": "install",
	"outbox": "queue", "peek": "inspect", "picture": "view", "room": "capacity",
	"roster": "peers", "stranger": "outsider", "strangers": "outsiders", "stray": "leftover", "strays": "leftovers",
	"teeth": "enforce", "tell": "report", "twin": "duplicate", "twins": "duplicates", "wall": "firewall",
}

// TestNamesAreTermsOfTheField looks at what the code declares, in any spelling. Names of tests are sentences.
func TestNamesAreTermsOfTheField(t *testing.T) {
	for _, s := range sources(t) {
		for _, id := range declared(s.file) {
			for _, word := range words(id.Name) {
				if better, ok := unknownWords[word]; ok {
					t.Errorf("%s: %s: use a term of the field instead of %q, such as %q", s.at.Position(id.Pos()), id.Name, word,
						better)
				}
			}
		}
	}
}

// declared returns the names that a file declares.
func declared(f *ast.File) (names []*ast.Ident) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if !strings.HasPrefix(n.Name.Name, "Test") {
				names = append(names, n.Name)
			}
		case *ast.TypeSpec:
			names = append(names, n.Name)
		case *ast.ValueSpec:
			names = append(names, n.Names...)
		case *ast.Field:
			names = append(names, n.Names...)
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				if id, ok := e.(*ast.Ident); ok && n.Tok.String() == ":=" {
					names = append(names, id)
				}
			}
		}
		return true
	})
	return names
}

// words splits a name at its capitals: the words of "isOutOfDate" are is, out, of, date.
func words(name string) []string {
	var out []string
	start := 0
	for i, r := range name {
		if unicode.IsUpper(r) || r == '_' {
			out, start = append(out, name[start:i]), i
		}
	}
	out = append(out, name[start:])
	for i, w := range out {
		out[i] = strings.ToLower(strings.TrimPrefix(w, "_"))
	}
	return slices.DeleteFunc(out, func(w string) bool { return w == "" })
}

// TestTheLintersReadEveryBuildTag: files that are built with a tag only are read by the linters, too.
func TestTheLintersReadEveryBuildTag(t *testing.T) {
	script, err := os.ReadFile("hack/lint")
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for _, list := range strings.Split(string(script), "-tags=")[1:] {
		list, _, _ = strings.Cut(list, `"`)
		tags := strings.Split(list, ",")
		if known = append(known, tags...); !slices.IsSorted(tags) {
			t.Errorf("the tags of hack/lint are %q, want a sorted list", tags)
		}
	}
	if len(known) < 5 {
		t.Errorf("the tags of hack/lint are %q", known)
	}
	files, err := exec.Command("git", "ls-files", "*.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	for file := range strings.FieldsSeq(string(files)) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, tag := range buildTags(string(text)) {
			if !slices.Contains(known, tag) {
				t.Errorf("%s is built with the tag %s, which hack/lint does not give", file, tag)
			}
		}
	}
}

// buildTags returns the tags in the build constraint of a file, but for those of machines.
func buildTags(text string) []string {
	head, _, _ := strings.Cut(text, "\npackage ")
	var tags []string
	for line := range strings.Lines(head) {
		expr, ok := strings.CutPrefix(line, "//go:build ")
		if !ok {
			continue
		}
		tags = append(tags, strings.FieldsFunc(expr, func(r rune) bool { return strings.ContainsRune("!&|() \n", r) })...)
	}
	// All that a byte order has, in files that bpf2go makes.
	machines := strings.Fields("linux 386 amd64 arm arm64 loong64 mips mips64 mips64le mips64p32 mips64p32le " +
		"mipsle mipsp32 ppc ppc64 ppc64le riscv riscv64 s390 s390x sparc sparc64 armbe arm64be wasm")
	return slices.DeleteFunc(tags, func(tag string) bool { return slices.Contains(machines, tag) })
}
