package flanneld

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// riddles are words and phrases of messages and pages that readers did not understand, each with what to write.
var riddles = map[string]string{
	"as good as none": "what happened", "answer is bad": "what is wrong with the answer", "secrets out": "without secrets",
	"nobody holds": "free", "no port to guard": "the backend has no tunnel port", "remembered state": "saved state",
	"stays lost at most": "after which it is restored at the latest", "PROGRAMMED": "INSTALLED",
	"own subnet is not in the store": "not in the store", "probed lately": "probed", "pass by itself": "retrying",
	"as it should be": "what differs", "all is well": "everything works", "put right": "repaired",
	"taken in": "applied", "told of": "notified of",
}

// unplain are words that messages do not need.
var unplain = map[string]string{
	"anew": "again", "nobody": "no host", "somebody": "another program", "by itself": "automatically",
	"by themselves": "automatically", "lately": "in the last minutes", "all the same": "nevertheless",
}

// TestMessagesAndPagesHaveNoRiddles looks at what people read: the texts in the code, the README and the pages for
// operators. Comments may be in the words of the code.
func TestMessagesAndPagesHaveNoRiddles(t *testing.T) {
	read := 0
	for _, s := range sources(t) {
		if s.isTest() || strings.HasPrefix(s.path, "lab/") || strings.HasPrefix(s.path, "hack/") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if _, tag := n.(*ast.Field); tag {
				return false // a name of JSON
			}
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			read++
			at := s.at.Position(lit.Pos()).String()
			findWords(t, at, text, riddles)
			findWords(t, at, text, unplain)
			return true
		})
	}
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		findWords(t, page, string(text), riddles)
	}
	if read < 1000 || len(pages) < 20 {
		t.Errorf("only %d texts and %d pages were read", read, len(pages))
	}
}

func findWords(t *testing.T, at, text string, words map[string]string) {
	t.Helper()
	for phrase, better := range words {
		if strings.Contains(" "+text+" ", " "+phrase) {
			t.Errorf("%s: %q in %.80q: say, for example, %q", at, phrase, text, better)
		}
	}
}
