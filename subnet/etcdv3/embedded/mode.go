package embedded

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"flanneld/subnet"
	"flanneld/subnet/etcdv3/authority"
	"flanneld/subnet/etcdv3/join"
)

// Folder returns where a daemon keeps the credentials for a secured store.
func Folder(stateDir string) authority.Folder {
	return authority.Folder(filepath.Join(stateDir, "store"))
}

// DataDir returns where etcd keeps its data.
func DataDir(stateDir string) string { return filepath.Join(stateDir, "etcd") }

// Wish is what the flags say of the security of an embedded store.
type Wish int

// The wishes.
const (
	Unsaid   Wish = iota // as the store is; a new one is secured
	Secure               // also one that was insecure before
	Insecure             // only one that was never secured
)

// Secured reports whether a member with this state folder is to be secured. It changes nothing.
func Secured(stateDir string, w Wish) (bool, error) {
	f := Folder(stateDir)
	_, joined := join.Load(f)
	switch has := f.HasAuthority(); {
	case joined && !has:
		return false, fmt.Errorf("this host has joined the store of other hosts: to run a store of its own, remove %s "+
			"before", f)
	case has && w == Insecure:
		return false, fmt.Errorf("the store of this host is secured, and -etcd-embedded-insecure would open it to "+
			"everybody: remove the flag; to start a new store without security, remove %s and %s", f, DataDir(stateDir))
	case has, w == Secure:
		return true, nil
	case w == Insecure:
		return false, nil
	}
	return !insecureBefore(stateDir), nil
}

// insecureMark says that the store of this host runs without security. Its data alone do not say so once they were
// moved away.
const insecureMark = "etcd-insecure"

// insecureBefore reports whether the store of this host ran without security.
func insecureBefore(stateDir string) bool {
	for _, path := range []string{filepath.Join(stateDir, insecureMark), filepath.Join(DataDir(stateDir), "member")} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

// MarkInsecure has the store of this host stay insecure, until the wish is another one.
func MarkInsecure(stateDir string) error {
	return subnet.WriteFile(filepath.Join(stateDir, insecureMark), 0o600, func(io.Writer) error { return nil })
}
