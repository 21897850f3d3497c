package options_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"flanneld/options"
)

func TestEveryFlagIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range options.Groups() {
		for _, f := range g.Flags {
			want := "`-" + f.Name + "`"
			if f.Default != "" && !strings.HasPrefix(f.Name, "kube-") && !strings.HasPrefix(f.Name, "set-node-") {
				want += " | `" + f.Default + "`"
			}
			if !bytes.Contains(doc, []byte(want)) {
				t.Errorf("docs/configuration.md has no %s", want)
			}
		}
	}
}
