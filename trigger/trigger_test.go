package trigger_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/trigger"
)

func TestASignalIsKeptAndSeveralAreOne(t *testing.T) {
	s := trigger.New()
	s.Set()
	s.Set()
	<-s
	select {
	case <-s:
		t.Error("a second signal was kept")
	default:
	}
	s.Set()
	<-s
}

func TestAPauseEndsWithTheTimeOrTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := trigger.Pause(t.Context(), time.Minute); err != nil || time.Since(start) != time.Minute {
			t.Errorf("got %v after %s, want nil after a minute", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		err := trigger.Pause(ctx, time.Minute)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("got %v after %s, want the end of the context after a second", err, time.Since(start))
		}
	})
}
