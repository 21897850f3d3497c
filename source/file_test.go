package source_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/source"
)

// configured notes what it is given.
type configured struct {
	source.Source
	mu    sync.Mutex // guards all below
	texts []string
}

func (c *configured) SetConfig(text []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.texts = append(c.texts, string(text))
}

func (c *configured) got() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.texts)
}

// TestAFileIsFollowedAsKubeletChangesIt exchanges a link, removes the file, and brings it back.
func TestAFileIsFollowedAsKubeletChangesIt(t *testing.T) {
	dir := t.TempDir()
	path, data := filepath.Join(dir, "net-conf.json"), filepath.Join(dir, "..data")
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(version string) {
		t.Helper()
		check(os.Mkdir(filepath.Join(dir, version), 0o755))
		check(os.WriteFile(filepath.Join(dir, version, "net-conf.json"), []byte(version), 0o644))
		check(os.Symlink(version, data+"_tmp"))
		check(os.Rename(data+"_tmp", data))
	}
	put("one")
	check(os.Symlink("..data/net-conf.json", path))
	synctest.Test(t, func(t *testing.T) {
		c := &configured{}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- source.FollowFile(ctx, c, path, slog.New(slog.DiscardHandler)) }()
		for _, tt := range []struct {
			do   func()
			want []string
		}{
			{func() {}, []string{"one"}},
			{func() { put("two") }, []string{"one", "two"}},
			{func() { check(os.Remove(data)) }, []string{"one", "two"}},
			{func() { check(os.Symlink("two", data)) }, []string{"one", "two", "two"}},
			{func() {}, []string{"one", "two", "two"}},
		} {
			tt.do()
			time.Sleep(10 * time.Second) // of the bubble
			synctest.Wait()
			if got := c.got(); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		}
		cancel()
		check(<-ended)
	})
	if err := source.FollowFile(t.Context(), &configured{}, "", slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("without a file: %v", err)
	}
}
