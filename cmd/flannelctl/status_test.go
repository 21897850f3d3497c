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

// TestTheStatusSaysTheErrorOfTheStoreOnce looks at a daemon that goes on without its store, and has logged that.
func TestTheStatusSaysTheErrorOfTheStoreOnce(t *testing.T) {
	since := time.Now()
	const cause = `dial tcp 192.0.2.1:2379: connect: "connection refused"`
	event := func(message, detail string) api.Event {
		return api.Event{Level: "WARN", Message: message, Detail: detail}
	}
	s := api.Status{
		State: api.StateDegraded, StoreSince: &since, StoreReason: cause, Ready: true,
		Reasons: []string{"lease not confirmed in the store", "store unreachable since now: " + cause},
		Errors: []api.Event{
			event("another warning", "peer=host2"),
			event("store unreachable, data plane left unchanged", "since=now reason="+cause),
			event("no lease in the store", "reason=lease not confirmed in the store: "+cause),
			event("degraded: packets flow, but there is a fault", "reasons=[store unreachable since now: "+cause+"]"),
		},
	}
	text := flannelctl.StatusText(s)
	if n := strings.Count(text, cause); n != 1 || !strings.Contains(text, "another warning peer=host2") {
		t.Errorf("the error stands there %d times, want once, and the other warning:\n%s", n, text)
	}
	s.Reasons = nil // a daemon of another version
	if text := flannelctl.StatusText(s); !strings.Contains(text, cause) {
		t.Errorf("the error is not shown:\n%s", text)
	}
	s.Reasons = []string{""} // not ready, and the reason is not known
	if text := flannelctl.StatusText(s); !strings.Contains(text, "another warning peer=host2") {
		t.Errorf("the warning is not shown:\n%s", text)
	}
}
