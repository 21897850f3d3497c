package flanneld

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityPromisesNameTheirTests: whoever renames or removes a test that docs/security.md names has to look at the
// promise.
func TestSecurityPromisesNameTheirTests(t *testing.T) {
	text, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	function, there := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`), map[string]bool{}
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		code, err := os.ReadFile(path)
		for _, m := range function.FindAllSubmatch(code, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllSubmatch(text, -1)
	if len(names) < 30 {
		t.Errorf("docs/security.md names %d tests", len(names))
	}
	for _, m := range names {
		if !there[string(m[1])] {
			t.Errorf("docs/security.md names the test %s, which does not exist", m[1])
		}
	}
}
