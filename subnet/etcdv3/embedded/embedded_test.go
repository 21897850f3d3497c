package embedded_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flanneld/need"
	"flanneld/subnet/etcdv3/embedded"
	"flanneld/subnet/etcdv3/join"
)

func never(t *testing.T) func(error) {
	return func(err error) { t.Errorf("waits: %v", err) }
}

func TestHostsJoinAndStayJoinedWhenTheMemberIsRestartedOrLosesItsData(t *testing.T) {
	t.Parallel()
	f := newFirst(t)
	second := f.joiner("second")
	second.Join(t.Context(), never(t))
	own, other := f.store(embedded.Folder(f.o.StateDir)), f.store(second.Client.Folder)
	if _, err := own.PutConfigIfAbsent(t.Context(), `{"Network": "10.5.0.0/16"}`); err != nil {
		t.Errorf("the daemon of the member cannot write the network configuration: %v", err)
	}
	if err := other.MayWrite(t.Context()); err != nil {
		t.Errorf("the host that has joined: %v", err)
	}
	if _, err := other.PutConfigIfAbsent(t.Context(), "{}"); err == nil {
		t.Error("the host that has joined may write the network configuration")
	}
	for what, lost := range map[string]bool{"a restart": false, "the loss of its data": true} {
		f.stop()
		if lost {
			if err := os.RemoveAll(embedded.DataDir(f.o.StateDir)); err != nil {
				t.Fatal(err)
			}
		}
		f.start()
		second.Join(t.Context(), never(t)) // asks nobody
		if err := f.store(second.Client.Folder).MayWrite(t.Context()); err != nil {
			t.Errorf("after %s the host has no rights: %v", what, err)
		}
	}
}

func TestAHostThatWasRemovedJoinsAgainWithANewTokenOnly(t *testing.T) {
	t.Parallel()
	f := newFirst(t)
	second := f.joiner("second")
	second.Join(t.Context(), never(t))
	if _, err := f.RemoveHost(t.Context(), "nobody"); err == nil {
		t.Error("a host that has not joined was removed")
	}
	if _, err := f.RemoveHost(t.Context(), "first"); err == nil {
		t.Error("the member was removed")
	}
	if _, err := f.RemoveHost(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	f.stop() // whoever was removed is not let in again by a restart
	f.start()
	if err := f.store(second.Client.Folder).MayWrite(t.Context()); err == nil {
		t.Error("a host that was removed may write")
	}
	keep := func(j embedded.Joiner) (again bool) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		j.Log = slog.New(onRecord{slog.DiscardHandler, cancel}) // it has failed, or joined
		var told told
		j.Keep(ctx, &told)
		return told.redials > 0
	}
	if keep(second) {
		t.Error("the token that was used already counts again")
	}
	renewed := second
	renewed.Token = f.joiner("second").Token
	if !keep(renewed) {
		t.Fatal("a new token does not count")
	}
	if err := f.store(second.Client.Folder).MayWrite(t.Context()); err != nil {
		t.Errorf("joined again: %v", err)
	}
}

// told is a store that remembers what it was told.
type told struct {
	endpoints []string
	redials   int
	moved     func()
}

func (s *told) Redial() { s.redials++ }

func (s *told) Members(context.Context) ([]string, error) { return s.endpoints, nil }

func (s *told) Move(endpoints []string) {
	s.endpoints = endpoints
	if s.moved != nil {
		s.moved()
	}
}

// A host learns where the members are now from any of them that it still reaches, or that its flag names.
func TestAHostFollowsTheMemberToAnotherAddress(t *testing.T) {
	t.Parallel()
	f := newFirst(t)
	second := f.joiner("second")
	second.Join(t.Context(), never(t))
	f.stop()
	f.o.Listen, f.o.Port = need.Address(t), need.Address(t).Port()
	f.start()
	second.Services = []string{netip.AddrPortFrom(f.o.Listen.Addr(), f.o.Port).String()}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := told{moved: cancel}
	second.Keep(ctx, &s)
	if want := "https://" + f.o.Listen.String(); len(s.endpoints) != 1 || s.endpoints[0] != want {
		t.Errorf("the members are at %q, want %s", s.endpoints, want)
	}
	if err := f.store(second.Client.Folder).MayWrite(t.Context()); err != nil {
		t.Errorf("at the new address: %v", err)
	}
}

// onRecord calls a function whenever something is logged.
type onRecord struct {
	slog.Handler
	call func()
}

func (onRecord) Enabled(context.Context, slog.Level) bool { return true }

func (h onRecord) Handle(context.Context, slog.Record) error {
	h.call()
	return nil
}

// A host whose token does not count says so as long as it waits, and joins once it has one that does.
func TestAHostWaitsWithTheReason(t *testing.T) {
	t.Parallel()
	f := newFirst(t)
	j := f.joiner("second")
	if err := f.RevokeToken(t.Context(), j.Token.ID); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reason error
	j.Join(ctx, func(err error) { reason = err; cancel() })
	if !errors.Is(reason, join.ErrRevoked) {
		t.Errorf("waits because of %v", reason)
	}
}

// snapshots returns the files, and waits for the first.
func (f *first) snapshots() (files []string) {
	f.t.Helper()
	need.Until(f.t, "a snapshot", time.Minute, func() bool {
		files, _ = filepath.Glob(embedded.SnapshotDir(f.o.StateDir) + "/*.db")
		return len(files) > 0
	})
	return files
}

func TestTheStoreIsSavedAndRestored(t *testing.T) {
	t.Parallel()
	f := newFirst(t)
	second := f.joiner("second")
	second.Join(t.Context(), never(t))
	const config = `{"Network": "10.5.0.0/16"}`
	if _, err := f.store(embedded.Folder(f.o.StateDir)).PutConfigIfAbsent(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	f.snapshots() // the first one is taken by itself
	if err := f.Snapshot(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	f.stop()
	junk := filepath.Join(embedded.DataDir(f.o.StateDir), "member", "snap", "db")
	if err := os.WriteFile(junk, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	f.launch()
	need.Until(t, "the member to say that its data are damaged", time.Minute, func() bool {
		err := f.reason()
		return err != nil && strings.Contains(err.Error(), "flannelctl restore")
	})
	if _, _, err := f.Restore(t.Context(), junk); err == nil {
		t.Error("what is no snapshot was restored")
	}
	files := f.snapshots()
	from, former, err := f.Restore(t.Context(), "")
	if err != nil || from != files[len(files)-1] || len(former) > 0 {
		t.Fatalf("restored is %s, want %s; other members are %v; %v", from, files[len(files)-1], former, err)
	}
	s := f.store(second.Client.Folder)
	if err := s.MayWrite(t.Context()); err != nil {
		t.Errorf("the host that had joined: %v", err)
	}
	if got, err := s.List(t.Context()); err != nil || string(got.Config) != config {
		t.Errorf("the configuration is %q, %v", got.Config, err)
	}
}

func TestTheLastSnapshotsAreKept(t *testing.T) {
	t.Parallel()
	f := newFirst(t)
	f.snapshots()
	at := time.Now()
	for i := range 10 {
		if err := f.Snapshot(t.Context(), at.Add(time.Duration(i+1)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	files := f.snapshots()
	newest := at.Add(10 * time.Minute).UTC().Format("20060102T150405Z")
	if len(files) != 8 || !strings.Contains(files[7], newest) {
		t.Errorf("kept are %q, want the last eight", files)
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
}

func TestWhatIsSecretIsForRootOnly(t *testing.T) {
	t.Parallel()
	f := newFirst(t)
	folder := string(embedded.Folder(f.o.StateDir))
	files, err := filepath.Glob(folder + "/*")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for path, want := range map[string]os.FileMode{folder: 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, want mode %o", path, info.Mode(), want)
		}
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, want mode 600", file, info.Mode())
		}
	}
}

func TestNothingSwitchesSilently(t *testing.T) {
	secured, joined, old, moved, fresh := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	if err := embedded.MarkInsecure(moved); err != nil {
		t.Fatal(err)
	}
	o := embedded.Options{StateDir: secured, Prefix: prefix, Listen: need.Address(t)}
	if _, err := embedded.NewMember(o); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca.pem", "host.pem", "host.key"} {
		if err := embedded.Folder(joined).Write(name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := join.Save(embedded.Folder(joined), join.Joined{Endpoints: []string{"https://192.0.2.1:2379"}}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(embedded.DataDir(old), "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		dir  string
		wish embedded.Wish
		want bool
		err  string
	}{
		{"a new store", fresh, embedded.Unsaid, true, ""},
		{"a new store that is to be secured", fresh, embedded.Secure, true, ""},
		{"a new store that is to be insecure", fresh, embedded.Insecure, false, ""},
		{"an insecure store", old, embedded.Unsaid, false, ""},
		{"an insecure store whose data were moved away", moved, embedded.Unsaid, false, ""},
		{"an insecure store whose data were moved away, that is to be secured", moved, embedded.Secure, true, ""},
		{"an insecure store that is to be secured", old, embedded.Secure, true, ""},
		{"a secured store", secured, embedded.Unsaid, true, ""},
		{"a secured store that is to be insecure", secured, embedded.Insecure, false, "open it to everybody"},
		{"a host that has joined another store", joined, embedded.Secure, false, "has joined the store of other hosts"},
	} {
		got, err := embedded.Secured(test.dir, test.wish)
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: secured is %v, %v", test.name, got, err)
		}
	}
}
