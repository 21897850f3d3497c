package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flanneld/api"
	"flanneld/redact"
	"flanneld/subnet"
	"flanneld/version"
)

// bundled are commands whose output tells about the host. None of them shows secrets of ours.
var bundled = []string{
	"uname -a", "ip -d -s link show", "ip addr show", "ip route show table all", "ip -6 route show table all",
	"ip rule show", "ip neigh show",
	"bridge fdb show", "nft list ruleset", "iptables-save", "ip6tables-save",
	"sysctl -a --pattern net.ipv4.(conf|neigh|ip_forward)", "ss -lunp",
	"journalctl -u flanneld -n 2000 --no-pager", "systemctl cat flanneld",
}

func newBundle(a *app) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "bundle", Short: "Write what a bug report needs into one archive, without secrets",
		Long: `Writes a tar.gz with status, peers, leases, events, the findings of the doctor, and the state of the kernel.
The credentials of the store are not read, and values that look like secrets are replaced by REDACTED.
Addresses and host names stay: read the archive before you pass it on. Needs root.`,
		Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.bundle(cmd.Context(), file) },
	}
	c.Flags().StringVarP(&file, "file", "f", "", "`archive` to write, mode 0600 (default flannel-DATE-TIME.tar.gz)")
	return c
}

func (a *app) bundle(ctx context.Context, file string) (err error) {
	if err := a.allowed(ctx); err != nil {
		return err
	}
	if file == "" {
		file = "flannel-" + time.Now().UTC().Format("20060102-150405") + ".tar.gz"
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("create bundle: %w", err)
	}
	z := gzip.NewWriter(f)
	t := tar.NewWriter(z)
	for name, text := range a.bundleFiles(ctx) {
		h := &tar.Header{Name: "flannel/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now()}
		err = errors.Join(err, t.WriteHeader(h))
		_, werr := t.Write(text)
		err = errors.Join(err, werr)
	}
	if err = errors.Join(err, t.Close(), z.Close(), f.Close()); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return a.say("written: " + file + "; read it before you pass it on")
}

// bundleFiles collects the files by their names. What cannot be had is said in its place.
func (a *app) bundleFiles(ctx context.Context) map[string][]byte {
	out := map[string][]byte{}
	for _, path := range []string{api.PathStatus, api.PathPeers, api.PathLeases, api.PathEvents} {
		v, err := ask[json.RawMessage](ctx, a, path)
		out[strings.TrimPrefix(path, "/v1/")+".json"] = orError(v, err)
	}
	findings := diagnose(ctx, a)
	text, err := json.MarshalIndent(findings, "", "  ")
	out["doctor.json"] = orError(text, err)
	var table bytes.Buffer
	err = writePage(&table, func(w page) { writeFindings(w, findings, true) })
	out["doctor.txt"] = orError(table.Bytes(), err)
	out["version.txt"] = []byte("flannelctl " + version.This().String() + "\n")
	if text, err := subnet.ReadFile(a.subnetFile, subnet.MaxEnvSize); !errors.Is(err, os.ErrNotExist) {
		out["subnet.env"] = orError(text, err)
	}
	for _, command := range bundled {
		words := strings.Fields(command)
		text, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
		if errors.Is(err, exec.ErrNotFound) {
			continue
		}
		out["host/"+strings.NewReplacer(" ", "_", "/", "_").Replace(command)+".txt"] = text
	}
	for name, text := range out {
		out[name] = redact.Text(text)
	}
	return out
}

func orError(text []byte, err error) []byte {
	if err != nil {
		return []byte(err.Error() + "\n")
	}
	return text
}
