package subnet

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// leftoverAge is the age of a temporary file from which on its writer counts as dead. A write takes a fraction of a
// second.
const leftoverAge = time.Minute

// ReadFile reads a regular file of at most limit bytes. A FIFO would block the reader for ever, a device such as
// /dev/zero never ends, and opening some devices has effects: anything but a regular file, or a symbolic link to one,
// is an error before it is opened.
func ReadFile(path string, limit int64) ([]byte, error) {
	if err := regular(os.Stat(path)); err != nil {
		return nil, pathError("read", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := regular(f.Stat()); err != nil { // exchanged since
		return nil, pathError("read", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = pathError("read", path, fmt.Errorf("larger than %d bytes", limit))
	}
	if err != nil {
		return nil, err
	}
	return text, nil
}

// regular returns an error that says what a file is if it is not a regular one.
func regular(info fs.FileInfo, err error) error {
	if err != nil {
		return err
	}
	switch t := info.Mode().Type(); {
	case t == 0:
		return nil
	case t&fs.ModeDir != 0:
		return errors.New("is a directory, not a regular file")
	case t&fs.ModeSymlink != 0:
		return errors.New("is a symbolic link, not a regular file")
	case t&fs.ModeNamedPipe != 0:
		return errors.New("is a FIFO, not a regular file")
	case t&fs.ModeSocket != 0:
		return errors.New("is a socket, not a regular file")
	}
	return errors.New("is a device, not a regular file")
}

// pathError names the path, unless the error does.
func pathError(op, path string, err error) error {
	if errors.As(err, new(*fs.PathError)) {
		return err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// WriteFile replaces a file whole or not at all: a reader never sees half of it, and neither does a host that
// lost power. The folder is created. What is not a regular file, such as a device, is not replaced: it is not ours. A
// symbolic link is replaced, not followed.
func WriteFile(path string, mode os.FileMode, write func(io.Writer) error) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSymlink {
		if err := regular(info, nil); err != nil {
			return pathError("replace", path, err)
		}
	}
	removeLeftovers(path)
	f, err := os.CreateTemp(dir, temporaryPrefix(path)+"*")
	if err != nil {
		return fmt.Errorf("create temporary file in %s: %w", dir, cause(err))
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	err = errors.Join(cause(write(f)), cause(f.Chmod(mode)), cause(f.Sync()), cause(f.Close()))
	if err != nil {
		return fmt.Errorf("write temporary file in %s: %w", dir, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("rename temporary file: %w", cause(err))
	}
	return nil
}

// cause is the error of a temporary file without its name, which is another one each time: who logs what is new would
// log each try.
func cause(err error) error {
	if file := (*fs.PathError)(nil); errors.As(err, &file) && strings.HasPrefix(filepath.Base(file.Path), ".") {
		return file.Err
	}
	if link := (*os.LinkError)(nil); errors.As(err, &link) {
		return link.Err
	}
	return err
}

func temporaryPrefix(path string) string { return "." + filepath.Base(path) + "." }

// removeLeftovers removes the temporary files of writers that were killed.
func removeLeftovers(path string) {
	dir, prefix := filepath.Dir(path), temporaryPrefix(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // the write that follows will say so
	}
	for _, e := range entries {
		random, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || random == "" || strings.Trim(random, "0123456789") != "" || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > leftoverAge {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// OpenLock opens a lock file with os.O_RDWR and os.O_CREATE or os.O_RDONLY. It is never a symbolic link: whoever may
// put one into the folder could have its target overwritten.
func OpenLock(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, how|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		err = pathError("open", path, errors.New("is a symbolic link, not a regular file: remove it"))
	}
	if err != nil {
		return nil, err
	}
	if err := regular(f.Stat()); err != nil {
		_ = f.Close()
		return nil, pathError("open", path, err)
	}
	return f, nil
}

// checkPrivate returns an error if anybody but root and this process's user and group may put files into a folder: they
// could exchange the state by their own.
func checkPrivate(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	mode := info.Mode().Perm()
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: other users could replace the state of this host: chown root %s", dir,
			st.Uid, dir)
	}
	if mode&0o002 != 0 || mode&0o020 != 0 && st.Gid != 0 && int(st.Gid) != os.Getegid() {
		return fmt.Errorf("%s is writable by others (mode %#o), who could replace the state of this host: run chmod go-w %s",
			dir, mode, dir)
	}
	return nil
}
