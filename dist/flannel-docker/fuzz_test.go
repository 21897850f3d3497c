package main_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	docker "flanneld/dist/flannel-docker"
)

// What is written says what was read, whatever that is, and is not written again.
func FuzzDaemonJSON(f *testing.F) {
	for _, c := range configs {
		f.Add([]byte(c.old))
	}
	f.Add([]byte("{\"\\ud800\": 1, \"a<b\": \"\\u2028\", \"\": {\"x\": [1e400]}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		once, err := docker.Rewritten(text)
		if err != nil {
			return
		}
		twice, err := docker.Rewritten(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q becomes %q, and that becomes %q, %v", text, once, twice, err)
		}
		if len(bytes.TrimSpace(text)) == 0 {
			text = []byte("{}")
		}
		if diff := cmp.Diff(decoded(t, text), decoded(t, once)); diff != "" {
			t.Errorf("%q becomes %q:\n%s", text, once, diff)
		}
	})
}

func decoded(t *testing.T, text []byte) (out map[string]any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return out
}
