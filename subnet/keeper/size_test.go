package keeper

import (
	"bytes"
	"os"
	"testing"
)

// TestTheProtocolStaysShort counts the lines of the files that the package comment names as the protocol.
func TestTheProtocolStaysShort(t *testing.T) {
	const most, mostInAFile = 1000, 300
	sum := 0
	for _, name := range []string{"relation.go", "survey.go", "claims.go", "choose.go", "decide.go", "act.go", "step.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		n := bytes.Count(text, []byte("\n"))
		if n > mostInAFile {
			t.Errorf("%s has %d lines, want at most %d", name, n, mostInAFile)
		}
		sum += n
	}
	if sum > most {
		t.Errorf("the protocol has %d lines, want at most %d", sum, most)
	}
}
