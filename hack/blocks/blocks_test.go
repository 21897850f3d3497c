package blocks

import (
	"slices"
	"strings"
	"testing"
)

func TestEveryCommandOfTheDocumentsNamesThePlaceWhereItIsRun(t *testing.T) {
	all, err := Read("../..")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	count := map[Place]int{}
	for _, c := range all {
		if !slices.Contains(Places, c.Place) {
			t.Errorf("%s: no test runs the command, give the block a place or the table a line:\n%s", c.File, c.Text)
		}
		count[c.Place]++
		if text := strings.TrimSpace(c.Text); c.Place == Never {
			if exceptions[text] == "" {
				t.Errorf("%s: an exception without a reason:\n%s", c.File, text)
			}
			used[text] = true
		}
	}
	for text := range exceptions {
		if !used[text] {
			t.Errorf("no document has the exception %q any more", text)
		}
	}
	t.Log(count)
}

func TestCommandsAreFoundWhereverTheyStand(t *testing.T) {
	const text = "Do `flannelctl nonsense --now`, or `make demo HOLD=1`, or `flannelctl status`.\n\n" +
		"   ```sh host\n   flannelctl status\n   make test\n   ```\n```console\nls\n```\n```\nsystemctl start x\n```\n" +
		"```json\n{}\n```\n" +
		"The status `flanneld` says, and `ip flannel-ipv4` is a table.\n"
	var got []string
	for _, c := range covered(read("a.md", text)) {
		got = append(got, string(c.Place)+": "+strings.TrimSpace(c.Run))
	}
	want := []string{"host: flannelctl status\nmake -n test", ": ls", ": systemctl start x", ": flannelctl nonsense --now",
		"source: make -n demo HOLD=1"}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
