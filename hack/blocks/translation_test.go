package blocks

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// skeleton returns what a translation shares with its original: the levels of the headings, the blocks, the rows of
// tables by their number of cells, and the targets of links.
func skeleton(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parts := regexp.MustCompile("(?ms)^```.*?^```$|^#+ |^\\|.*?$|\\]\\([^)]+\\)").FindAllString(string(text), -1)
	var out []string
	for _, part := range parts {
		if !strings.HasPrefix(part, "|") {
			out = append(out, strings.ReplaceAll(part, ".zh.md", ".md"))
			continue
		}
		out = append(out, strings.Repeat("|", strings.Count(part, "|")))
		for _, link := range regexp.MustCompile(`\]\([^)]+\)`).FindAllString(part, -1) {
			out = append(out, strings.ReplaceAll(link, ".zh.md", ".md"))
		}
	}
	return out
}

func TestTranslationsHaveTheStructureOfTheOriginal(t *testing.T) {
	var files []string
	for _, pattern := range []string{"../../*.zh.md", "../../docs/*.zh.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) < 2 {
		t.Fatalf("translations are %q, want those of README.md and docs/start.md", files)
	}
	for _, file := range files {
		got, want := skeleton(t, file), skeleton(t, strings.TrimSuffix(file, ".zh.md")+".md")
		if len(want) < 10 {
			t.Errorf("%s: only %d parts found in the original", file, len(want))
		}
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || got[i] != want[i] {
				t.Errorf("%s: part %d is %q, want %q", file, i, slices.Concat(got, []string{"", ""})[min(i, len(got))],
					slices.Concat(want, []string{""})[min(i, len(want))])
				break
			}
		}
	}
}
