package main_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	flannelctl "flanneld/cmd/flannelctl"
)

// socketWith answers each path as a daemon would, and returns the subnet file that leads to it.
func socketWith(t *testing.T, answers map[string]any) (subnetFile string) {
	t.Helper()
	subnetFile = filepath.Join(t.TempDir(), "subnet.env")
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", api.SocketPath(subnetFile))
	if err != nil {
		t.Fatal(err)
	}
	srv := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v, ok := answers[r.Method+" "+r.URL.Path]; ok {
			_ = json.NewEncoder(w).Encode(v)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return subnetFile
}

func TestTheCommandForOtherHostsIsPrinted(t *testing.T) {
	for service, hint := range map[string]bool{"192.0.2.1:8474": false, "127.0.0.1:8474": true, "[::1]:8474": true} {
		token := api.Token{Text: "flt1.x", Services: []string{service}}
		file := socketWith(t, map[string]any{"POST " + api.PathTokens: token})
		out, says, code := flannelctl.Run(t, "token", "create", "--subnet-file", file)
		if code != 0 || !strings.HasPrefix(out, "flanneld -join flt1.x@"+service+"\n") {
			t.Errorf("exits with %d and prints %s%s", code, out, says)
		}
		if strings.Contains(out, "-etcd-embedded-listen ADDRESS") != hint {
			t.Errorf("for %s it prints %s", service, out)
		}
	}
}

func TestTokensAndHostsAreListedWithoutSecrets(t *testing.T) {
	now := time.Now()
	file := socketWith(t, map[string]any{
		"GET " + api.PathTokens: []api.Token{{ID: "abcdefgh", State: "revoked", Created: now, Expires: now}},
		"GET " + api.PathHosts:  []api.JoinedHost{{User: "host-1", Host: "one\x1b", Joined: now, Member: true}},
	})
	for command, want := range map[string][]string{
		"token list": {"abcdefgh", "revoked"}, "hosts list": {"host-1", `one\x1b`, "yes"},
	} {
		out, says, code := flannelctl.Run(t, append(strings.Fields(command), "--subnet-file", file)...)
		for _, w := range want {
			if code != 0 || !strings.Contains(out, w) {
				t.Errorf("%s exits with %d and prints no %q: %s%s", command, code, w, out, says)
			}
		}
	}
}
