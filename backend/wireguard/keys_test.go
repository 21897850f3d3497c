package wireguard_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flanneld/backend/wireguard"
	"flanneld/backend/wireguard/options"
)

func TestThePrivateKeyIsMadeOnceAndKeptInAllFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("WIREGUARD_KEY_FILE", "")
	files := options.FindKeyFiles(filepath.Join(dir, "state"), filepath.Join(dir, "run", "subnet.env"))
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	first, err := wireguard.LoadKey(files, logger)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err != nil || statErr != nil || strings.TrimSpace(string(text)) != first.String() || info.Mode().Perm() != 0o400 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "run")); err != nil { // the host reboots
		t.Fatal(err)
	}
	again, err := wireguard.LoadKey(files, logger)
	if err != nil || again != first {
		t.Errorf("another key after a reboot, %v", err)
	}
	if _, err := os.Stat(files[0]); err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), first.String()) || !strings.Contains(log.String(), first.PublicKey().String()) {
		t.Errorf("log: %s", &log)
	}
}

func TestTheKeyOfFlannelIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	files := options.KeyFiles{filepath.Join(dir, "wgkey"), filepath.Join(dir, "state.wgkey")}
	for i, text := range []string{secret(7).String(), secret(8).String() + "\n"} {
		if err := os.WriteFile(files[i], []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	got, err := wireguard.LoadKey(files, slog.New(slog.DiscardHandler))
	kept, readErr := os.ReadFile(files[1])
	if err != nil || readErr != nil || got != secret(7) || strings.TrimSpace(string(kept)) != got.String() {
		t.Errorf("the key of the run folder does not count: %v, %v", err, readErr)
	}
}

func TestAFileWithoutAKey(t *testing.T) {
	dir := t.TempDir()
	files := options.KeyFiles{filepath.Join(dir, "wgkey"), filepath.Join(dir, "state.wgkey")}
	const garbage = "hunter2"
	if err := os.WriteFile(files[0], []byte(garbage), 0o400); err != nil {
		t.Fatal(err)
	}
	_, err := wireguard.LoadKey(files, slog.New(slog.DiscardHandler))
	if err == nil || strings.Contains(err.Error(), garbage) || !strings.Contains(err.Error(), files[0]) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(files[1], []byte(secret(8).String()), 0o400); err != nil {
		t.Fatal(err)
	}
	if got, err := wireguard.LoadKey(files, slog.New(slog.DiscardHandler)); err != nil || got != secret(8) {
		t.Errorf("the copy is not used: %v", err)
	}
}
