package main_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	flannelctl "flanneld/cmd/flannelctl"
)

func TestTheClockOfAServerIsRead(t *testing.T) {
	for _, off := range []time.Duration{0, time.Hour, -time.Hour} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
		}))
		t.Cleanup(s.Close)
		clocks := flannelctl.Clocks(t.Context(), []string{"unix:///nowhere", s.URL})
		if len(clocks) != 1 || clocks[0].Endpoint != s.URL || (clocks[0].Behind+off).Abs() > time.Minute {
			t.Errorf("a clock that is %s ahead is read as %+v", off, clocks)
		}
	}
	if clocks := flannelctl.Clocks(t.Context(), []string{"unix:///nowhere"}); len(clocks) != 0 {
		t.Errorf("a server that tells no time is read as %+v", clocks)
	}
}
