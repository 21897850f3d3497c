package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	flannelctl "flanneld/cmd/flannelctl"
	"flanneld/need"
)

func TestEveryCommandHasAManualPageWithItsFlags(t *testing.T) {
	folder := t.TempDir()
	if _, says, code := flannelctl.Run(t, "manual", folder); code != 0 {
		t.Fatal(says)
	}
	files, err := filepath.Glob(folder + "/*.1")
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pages[strings.TrimSuffix(filepath.Base(file), ".1")] = string(text)
		if out, err := exec.Command(need.Program(t, "groff"), "-man", "-ww", "-Tutf8", "-z",
			file).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("groff: %v\n%s", err, out)
		}
	}
	roff := strings.NewReplacer("-", `\-`)
	for command, flags := range flannelctl.Definitions() {
		name := strings.ReplaceAll(command, " ", "-")
		page := pages[name]
		if page == "" {
			t.Errorf("no page %s", name)
		}
		for _, flag := range flags {
			if !strings.Contains(page, ".B "+roff.Replace("--"+flag)) && !strings.Contains(page, ", "+roff.Replace("--"+flag)) {
				t.Errorf("the page %s does not explain --%s", name, flag)
			}
		}
		for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"} {
			if !strings.Contains(page, ".SH "+section+"\n") {
				t.Errorf("the page %s has no section %s", name, section)
			}
		}
		if !strings.Contains(pages["flannelctl"]+pages["flannelctl-leases"]+pages["flannelctl-network"]+
			pages["flannelctl-completion"]+pages["flannelctl-token"]+pages["flannelctl-hosts"]+pages["flannelctl-members"],
			".BR "+roff.Replace(name)+" (1)") {
			t.Errorf("no list of commands names the page %s", name)
		}
	}
}
