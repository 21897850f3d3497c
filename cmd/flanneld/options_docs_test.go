package main_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	flanneld "flanneld/cmd/flanneld"
)

func TestEveryFlagIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var usage bytes.Buffer
	_, _ = flanneld.Parse([]string{"-help"}, nil, &usage) // flag.ErrHelp
	flags := regexp.MustCompile(`(?m)^  -(\S+)(?:.*\(default (.*)\))?`).FindAllStringSubmatch(usage.String(), -1)
	if len(flags) < 30 {
		t.Fatalf("usage has %d flags, want all", len(flags))
	}
	for _, f := range flags {
		want := "`-" + f[1] + "`"
		if f[2] != "" && !strings.HasPrefix(f[1], "kube-") && !strings.HasPrefix(f[1], "set-node-") {
			want += " | `" + f[2] + "`"
		}
		if !bytes.Contains(doc, []byte(want)) {
			t.Errorf("docs/configuration.md has no %s", want)
		}
	}
}
