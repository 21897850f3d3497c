package main_test

import (
	"regexp"
	"strings"
	"testing"

	flannelctl "flanneld/cmd/flannelctl"
)

func TestTheHelpOfACommandShowsItsOwnFlagsOnly(t *testing.T) {
	for args, want := range map[string]bool{"--help": true, "peers --help": false, "leases reserve --help": false} {
		out, _, code := flannelctl.Run(t, strings.Fields(args)...)
		if code != 0 || strings.Contains(out, "--etcd-cafile") != want || !strings.Contains(out, "-o") {
			t.Errorf("flannelctl %s exits with %d and prints\n%s", args, code, out)
		}
	}
}

func TestTheHelpOfEveryCommandShowsExamplesThatParse(t *testing.T) {
	root := flannelctl.Root()
	commands := flannelctl.Runnable(root)
	if len(commands) < 15 {
		t.Fatalf("%d commands, want all", len(commands))
	}
	for _, c := range commands {
		if c.Example == "" {
			t.Errorf("the help of %q has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			line, _, _ = strings.Cut(line, " #")
			call := regexp.MustCompile(`^\s+(EDITOR=\w+ )?` + c.CommandPath() + `(\s|$)`).FindString(line)
			if call == "" {
				t.Errorf("the example %q of %q calls another command", line, c.CommandPath())
				continue
			}
			args := regexp.MustCompile(`'[^']*'|\S+`).FindAllString(line[len(call):], -1)
			if err := c.ParseFlags(args); err != nil {
				t.Errorf("%q: %v", line, err)
			} else if err := c.ValidateArgs(c.Flags().Args()); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
}
