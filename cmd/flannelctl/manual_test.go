package main_test

import (
	"os/exec"
	"strings"
	"testing"

	flannelctl "flanneld/cmd/flannelctl"
	"flanneld/need"
)

func TestTheManualPageNamesEveryCommandAndFlag(t *testing.T) {
	page, says, code := flannelctl.Run(t, "manual")
	if code != 0 {
		t.Fatal(says)
	}
	commands, flags := flannelctl.Definitions()
	for _, name := range commands {
		if !strings.Contains(page, ".SS "+name) {
			t.Errorf("no command %s", name)
		}
	}
	for _, name := range flags {
		if !strings.Contains(page, `\-\-`+strings.ReplaceAll(name, "-", `\-`)) {
			t.Errorf("no flag %s", name)
		}
	}
	c := exec.Command(need.Program(t, "groff"), "-man", "-ww", "-Tutf8", "-z")
	c.Stdin = strings.NewReader(page)
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}
