package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/utils"

	"flanneld/subnet"
)

const (
	newPrefix     = ".new-"          // of files that are not in place yet
	maxRecordSize = 16 << 20         // bytes
	lockWait      = 20 * time.Second // for a call that is under way
)

var errBusy = errors.New("another call for it is still running")

// store is the folder of saved configurations, one file an attachment:
//
//	CONTAINERID         the first interface of a container; the only name that other flannels know
//	CONTAINERID:IFNAME  the others; neither part can contain a colon
//
// A file is locked while a process of the attachment's ADD or DEL lives. The lock is inherited by the delegate and by
// whatever that starts, so a plugin that was killed leaves its file locked until its delegate has ended too, and nobody
// frees an attachment that is still being made.
type store struct {
	dir string
}

// entry is a saved configuration that this process holds the lock of.
type entry struct {
	path string
	file *os.File
	text []byte
}

func (s store) plain(k Key) string { return filepath.Join(s.dir, k.ContainerID) }
func (s store) own(k Key) string   { return s.plain(k) + ":" + k.IfName }

// add saves a configuration under a name that is free, and locks it before anybody can see it.
func (s store) add(k Key, r record) (*entry, error) {
	text, err := r.marshal()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("create folder of saved configurations: %w", err)
	}
	e := &entry{text: text}
	temporary, err := e.write(s.dir)
	if err != nil {
		return nil, err
	}
	defer os.Remove(temporary)
	for _, e.path = range []string{s.plain(k), s.own(k)} {
		err = os.Link(temporary, e.path)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		e.close()
		return nil, fmt.Errorf("save configuration: %w", err)
	}
	return e, nil
}

// write makes a file with the entry's text, locks it, and returns its temporary name. There is no fsync: what a power
// failure leaves empty is freed with the network's configuration, and every container of this host has ended then.
func (e *entry) write(dir string) (string, error) {
	for {
		f, err := os.CreateTemp(dir, newPrefix)
		if err != nil {
			return "", fmt.Errorf("save configuration: %w", err)
		}
		e.file = f
		_, err = f.Write(e.text)
		if err = errors.Join(err, inherit(f), syscall.Flock(int(f.Fd()), syscall.LOCK_EX)); err != nil {
			e.close()
			return "", errors.Join(fmt.Errorf("save configuration: %w", err), os.Remove(f.Name()))
		}
		if isAt(f, f.Name()) {
			return f.Name(), nil
		}
		e.close() // a sweep was faster than our lock
	}
}

// replace puts another text in the place of the entry's, whole or not at all.
func (e *entry) replace(r record) error {
	text, err := r.marshal()
	if err != nil {
		return err
	}
	next := &entry{text: text, path: e.path}
	temporary, err := next.write(filepath.Dir(e.path))
	if err != nil {
		return err
	}
	if err := os.Rename(temporary, e.path); err != nil {
		next.close()
		return errors.Join(fmt.Errorf("save configuration: %w", err), os.Remove(temporary))
	}
	e.close()
	*e = *next
	return nil
}

// remove removes the file and lets go of it.
func (e *entry) remove() error {
	defer e.close()
	if err := os.Remove(e.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove saved configuration: %w", err)
	}
	return nil
}

// close lets go of the lock, when no delegate holds it any more.
func (e *entry) close() { _ = e.file.Close() }

// done notes the end of a successful ADD in the file's time: a GC that began before leaves it alone.
func (e *entry) done() error {
	now := time.Now()
	return os.Chtimes(e.path, now, now)
}

// savedSince reports whether the file was written, or its ADD ended, after a moment. A time to come is a clock's that
// was set back.
func (e *entry) savedSince(moment time.Time) bool {
	info, err := e.file.Stat()
	return err != nil || !info.ModTime().Before(moment) && !info.ModTime().After(time.Now())
}

// lock opens and locks a file; the error wraps fs.ErrNotExist if there is none.
func lock(path string, wait time.Duration) (*entry, error) {
	deadline := time.Now().Add(wait)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("open saved configuration: %w", err)
		}
		if err := flock(f, time.Until(deadline)); err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !isAt(f, path) { // removed or replaced while we waited
			_ = f.Close()
			continue
		}
		text, err := subnet.ReadFile(path, maxRecordSize)
		if err = errors.Join(err, inherit(f)); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("read saved configuration: %w", err)
		}
		return &entry{path, f, text}, nil
	}
}

// find locks what is saved for an attachment; the error wraps fs.ErrNotExist if there is nothing. A file that does not
// say whose it is counts as the attachment's if guess is set and there is no better one.
func (s store) find(k Key, guess bool) (*entry, error) {
	for _, path := range []string{s.own(k), s.plain(k)} {
		e, err := lock(path, lockWait)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r, err := parseRecord(e.text)
		if labelled := err == nil && r.IfName != ""; labelled && r.IfName == k.IfName || !labelled && guess {
			return e, nil
		}
		e.close()
	}
	return nil, fmt.Errorf("saved configuration of %s in %s: %w", k.ContainerID, s.dir, fs.ErrNotExist)
}

// keys lists the files, each with the attachment that its name tells; IfName is empty for the first interface of a
// container.
func (s store) keys() (map[string]Key, error) {
	files, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list saved configurations: %w", err)
	}
	out := map[string]Key{}
	for _, f := range files {
		id, ifName, _ := strings.Cut(f.Name(), ":")
		if f.Type().IsRegular() && utils.ValidateContainerID(id) == nil {
			out[filepath.Join(s.dir, f.Name())] = Key{id, ifName}
		}
	}
	return out, nil
}

// networkOn returns the name of another network that has attachments on a bridge, or "".
func (s store) networkOn(bridge, except string) string {
	files, err := s.keys()
	if err != nil {
		return ""
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		text, err := subnet.ReadFile(path, maxRecordSize)
		if err != nil {
			continue
		}
		r, err := parseRecord(text)
		if err != nil || r.config.text("type") != defaultDelegate || r.config.text("name") == except {
			continue
		}
		if name := r.config.text("bridge"); name == bridge || name == "" && bridge == defaultBridge {
			return r.config.text("name")
		}
	}
	return ""
}

// sweep removes what a killed plugin has left before its file was in place: what is older than the moment and not
// locked.
func (s store) sweep(moment time.Time) {
	left, _ := filepath.Glob(filepath.Join(s.dir, newPrefix+"*"))
	for _, path := range left {
		if info, err := os.Lstat(path); err == nil && info.ModTime().Before(moment) {
			if e, err := lock(path, 0); err == nil {
				_ = e.remove()
			}
		}
	}
}
