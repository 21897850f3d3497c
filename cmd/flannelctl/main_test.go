package main_test

import (
	"strings"
	"testing"

	flannelctl "flanneld/cmd/flannelctl"
)

// TestAGroupOfCommandsAlonePrintsItsHelp looks at all groups, and at what they do with a command that they do not have.
func TestAGroupOfCommandsAlonePrintsItsHelp(t *testing.T) {
	help, _, _ := flannelctl.Run(t, "--help")
	groups := 0
	for _, c := range flannelctl.Root().Commands() {
		if !c.HasSubCommands() {
			continue
		}
		groups++
		if !strings.Contains(help, `"`+c.Name()+`"`) {
			t.Errorf("the help of flannelctl does not say that %s is a group", c.Name())
		}
		if c.Name() != "leases" { // lists them
			out, says, code := flannelctl.Run(t, c.Name())
			want, _, _ := flannelctl.Run(t, c.Name(), "--help")
			if out != want || says != "" || code != 0 || !strings.Contains(out, "Available Commands:") {
				t.Errorf("flannelctl %s exits with %d, want its help and 0:\n%s%s", c.Name(), code, out, says)
			}
		}
		_, says, code := flannelctl.Run(t, c.Name(), "nonsense")
		if code != 2 || strings.Count(says, "\n") != 1 || !strings.Contains(says, `see "flannelctl `+c.Name()+` --help"`) {
			t.Errorf("flannelctl %s nonsense exits with %d, want 2 and one line with a hint:\n%s", c.Name(), code, says)
		}
	}
	if groups != 6 {
		t.Errorf("%d groups, want leases, network, token, hosts, members and completion", groups)
	}
}

func TestTheHelpShowsCommandsByTheme(t *testing.T) {
	out, _, _ := flannelctl.Run(t, "--help")
	last := -1
	for _, title := range []string{"Show and check:", "Change the network and this host:", "Embedded store:",
		"Additional Commands:"} {
		at := strings.Index(out, "\n"+title+"\n")
		if at <= last {
			t.Errorf("no %q, or not after the one before:\n%s", title, out)
		}
		last = at
	}
	for _, c := range flannelctl.Root().Commands() {
		if c.GroupID == "" && !c.Hidden && c.Name() != "help" && c.Name() != "completion" {
			t.Errorf("%s has no theme", c.Name())
		}
	}
}

// The table of docs/flannelctl.md. What needs a daemon or a store is tested in lab.
func TestExitCodesAreTheDocumentedOnes(t *testing.T) {
	none := t.TempDir() + "/subnet.env"
	tests := []struct {
		name string
		args string
		code int
		says string // in the message
	}{
		{"no command prints the help", "", 0, ""},
		{"version", "version --json", 0, ""},
		{"the help of a command", "help leases watch", 0, ""},
		{"an unknown command", "nonsense", 2, `no command "nonsense"`},
		{"a command that is nearly right", "statsu", 2, `did you mean "status"`},
		{"an unknown command of a group that runs", "leases nonsense", 2, `see "flannelctl leases --help"`},
		{"an unknown command of a group that does not run", "network nonsense", 2, "no command"},
		{"an unknown shell", "completion nonsense", 2, "no command"},
		{"help of an unknown command", "help nonsense", 2, "no command"},
		{"an unknown flag", "status --nonsense", 2, "unknown flag"},
		{"an argument too many", "status x", 2, "want no arguments, got 1"},
		{"an argument too few", "leases history", 2, "want 1 argument, got 0"},
		{"an output format that does not exist", "status -o xml", 2, "want table, wide, json or yaml"},
		{"an empty path", "status --subnet-file=", 2, "--subnet-file is empty"},
		{"a subnet that is none", "leases history 10.5.1.1", 2, "no subnet"},
		{"a prefix that is none of annotations", "leases nodes --annotation-prefix a/b/c", 2, "--annotation-prefix"},
		{"a file that is not there", "network validate @/nonexistent", 1, "no such file"},
		{"a wrong configuration", "network validate {}", 1, "Network is missing"},
		{"an unknown backend", `network validate {"Network":"10.5.0.0/16","Backend":{"Type":"carrier-pigeon"}}`, 1,
			"carrier-pigeon"},
		{"wrong options of a backend",
			`network validate {"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":-1}}`, 1, "VNI"},
		{"a good configuration, before the first daemon", `network validate {"Network":"10.5.0.0/16"}`, 0, ""},
		{"status without a daemon", "status --subnet-file " + none, 4, "no daemon answers"},
		{"drain without a daemon", "drain --subnet-file " + none, 4, "no daemon answers"},
		{"a store that is away", "leases --etcd-endpoints http://127.0.0.1:1 --subnet-file " + none, 1,
			"etcd http://127.0.0.1:1"},
		{"a check of the doctor that fails", "doctor --etcd-endpoints http://127.0.0.1:1 --subnet-file " + none, 3, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, says, code := flannelctl.Run(t, strings.Fields(tt.args)...)
			if code != tt.code || !strings.Contains(says, tt.says) || strings.Count(says, "hint:") > 1 {
				t.Errorf("flannelctl %s exits with %d, want %d and %q:\n%s", tt.args, code, tt.code, tt.says, says)
			}
		})
	}
}
