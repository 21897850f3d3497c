package main_test

import (
	"strings"
	"testing"
	"time"

	"flanneld/api"
	flannelctl "flanneld/cmd/flannelctl"
)

// TestTheStatusOfADaemonThatWaitsSaysWhatIsNotKnownYet looks at a daemon that has not even chosen an interface.
func TestTheStatusOfADaemonThatWaitsSaysWhatIsNotKnownYet(t *testing.T) {
	text := flannelctl.StatusText(api.Status{
		State: api.StateNotReady, Reasons: []string{"waiting for an interface"}, Host: "host1", Identity: "ABC",
		Version: "v1", Started: time.Now(), Daemon: &api.Daemon{Endpoints: []string{"http://192.0.2.1:2379"}, Prefix: "/p"},
	})
	for _, want := range []string{
		"state       not ready", "            waiting for an interface", "network     -", "lease       none",
		"backend     -", "device      -", "underlay    not chosen yet",
		"store       http://192.0.2.1:2379 under /p, no records read yet", "reconciler  not run yet",
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no line %q in\n%s", want, text)
		}
	}
}
