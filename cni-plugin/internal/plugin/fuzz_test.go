package plugin

import (
	"net"
	"path/filepath"
	"testing"
)

// FuzzRecord reads saved configurations of any content.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"name":"cbr0","type":"bridge","cniVersion":"1.0.0","flanneld.attachment":{"ifName":"eth0","netns":"/run/netns/a","netnsID":"4:1"}}`))
	f.Add([]byte(`{"name":"cbr0","type":"bridge","flanneld.attachment":7}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRecord(text)
		if err != nil {
			return
		}
		out, err := r.marshal()
		if err != nil {
			t.Fatalf("a record that was read cannot be written: %v", err)
		}
		if again, err := parseRecord(out); err != nil || again.owner != r.owner {
			t.Errorf("%+v is read back as %+v, %v", r.owner, again.owner, err)
		}
	})
}

// FuzzReady has a server answer whether it is ready with arbitrary bytes.
func FuzzReady(f *testing.F) {
	f.Add([]byte("HTTP/1.0 200 OK\r\n\r\n{\"ready\":true}"))
	f.Add([]byte("HTTP/1.1 503 x\r\nA: b\r\n\r\n{\"ready\":false,\"reason\":\"waiting\"}"))
	f.Add([]byte("HTTP/1. \r\n\r\n"))
	socket := filepath.Join(f.TempDir(), "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = l.Close() })
	answers := make(chan []byte, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1000)) // the question
			_, _ = c.Write(<-answers)         // the plugin may have gone
			_ = c.Close()
		}
	}()
	f.Fuzz(func(t *testing.T, answer []byte) {
		answers <- answer
		if ready, reason, err := askReady(socket); err != nil && (ready || reason != "") {
			t.Errorf("got %t, %q with the error %v", ready, reason, err)
		}
	})
}
