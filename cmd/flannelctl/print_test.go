package main_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode"

	flannelctl "flanneld/cmd/flannelctl"
)

func TestNothingFromARecordReachesATerminal(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain text stays", "host1 (10.5.1.0/24)", "host1 (10.5.1.0/24)"},
		{"letters of all scripts stay", "größe 主机 хост", "größe 主机 хост"},
		{"an escape sequence", "a\x1b[2Jb", `a\x1b[2Jb`},
		{"a line break", "a\n10.5.9.0/24  forged", `a\n10.5.9.0/24  forged`},
		{"a carriage return and a tab", "a\r\tb", `a\r\tb`},
		{"a C1 control", "a\u009b2Jb", `a\u009b2Jb`},
		{"a mark that turns the direction of writing", "a\u202eb\u2066c\u200f", `a\u202eb\u2066c\u200f`},
		{"a line separator of Unicode", "a\u2028b", `a\u2028b`},
		{"an invisible character", "a\u200bb\U000e0041", `a\u200bb\U000e0041`},
		{"bytes that are no UTF-8", "a\x9b\xffb", `a\x9b\xffb`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := flannelctl.Clean(tt.in); got != tt.want {
				t.Errorf("clean(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
	if got := flannelctl.Clean(strings.Repeat("ä", 100_000)); len(got) > 3000 {
		t.Errorf("a name of 100,000 letters makes a cell of %d bytes", len(got))
	}
}

func TestTablesJSONAndErrorsAreClean(t *testing.T) {
	const evil = "a\x1b[31m\u202e\u009b\n10.5.9.0/24\tforged\U000e0041"
	table, text := flannelctl.Render(t, evil)
	unsafe := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
	if n := strings.Count(table, "\n"); n != 2 || strings.ContainsFunc(table, unsafe) {
		t.Errorf("two rows with a value from a record are printed as %q", table)
	}
	var back map[string]string
	if err := json.Unmarshal([]byte(text), &back); err != nil || back["host"] != evil {
		t.Errorf("JSON %q is read as %q, %v", text, back, err)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
		t.Errorf("JSON for a terminal is %q", text)
	}
	if got, want := flannelctl.CleanText("list:\nforged\x1b\n"), "list:\n  forged\\x1b"; got != want {
		t.Errorf("an error is printed as %q, want %q", got, want)
	}
}

// Only one file knows how to write to a terminal, so that nothing is printed uncleaned.
func TestOnlyOneFilePrints(t *testing.T) {
	for _, file := range sourceFiles(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range []string{
			"fmt.Print", "os.Stdout.", "os.Stderr.", "a.out.", "Fprintln(", "Fprint(w", "Fprintf(w", "Fprintf(a.",
		} {
			if file != "print.go" && strings.Contains(string(text), call) {
				t.Errorf("%s calls %s: print by a page", file, call)
			}
		}
	}
}

func sourceFiles(t *testing.T) (files []string) {
	t.Helper()
	all, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if strings.HasSuffix(f.Name(), ".go") && !strings.HasSuffix(f.Name(), "_test.go") {
			files = append(files, f.Name())
		}
	}
	return files
}
