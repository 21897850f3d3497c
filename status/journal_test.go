package status_test

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/status"
)

func TestJournalKeepsTheLastLines(t *testing.T) {
	var out bytes.Buffer
	j := status.NewJournal(slog.NewTextHandler(&out, nil))
	log := slog.New(j).With("device", "flannel.1")
	log.Info("first")
	log.Warn("second", "peer", "10.5.1.0/24")
	log.Debug("not kept")
	events := j.Events()
	if len(events) != 2 || events[0].Message != "first" || events[1].Detail != "device=flannel.1 peer=10.5.1.0/24" {
		t.Errorf("events are %+v", events)
	}
	if errs := j.Errors(); len(errs) != 1 || errs[0].Message != "second" {
		t.Errorf("errors are %+v, want the warning", errs)
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines were passed on, want 2:\n%s", n, out.String())
	}
}

func TestJournalKeepsOnlyTheBeginningOfALongLine(t *testing.T) {
	j := status.NewJournal(slog.NewTextHandler(io.Discard, nil))
	slog.New(j).Warn("long", "reason", strings.Repeat("ä", 1_000_000))
	if n := len(j.Events()[0].Detail); n > 2100 {
		t.Errorf("%d bytes are kept of one line", n)
	}
}

func TestJournalHoldsBackWhatRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		j := status.NewJournal(slog.NewTextHandler(&out, nil))
		log := slog.New(j)
		for range 1000 {
			log.Info("storm")
		}
		log.Info("something else")
		time.Sleep(time.Second)
		log.Info("storm")
		text := out.String()
		if n := strings.Count(text, "msg=storm"); n != 21 {
			t.Errorf("%d lines of the storm passed, want 20 and 1 a second later", n)
		}
		if !strings.Contains(text, "something else") || !strings.Contains(text, "held_back=980") {
			t.Errorf("another message, or the count of those held back, is missing:\n%s", text)
		}
		for range 1000 {
			log.Info("storm")
			time.Sleep(time.Second)
		}
		if n := len(j.Events()); n != 200 {
			t.Errorf("%d events are kept, want 200", n)
		}
	})
}
