package flanneld

import (
	"go/ast"
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
