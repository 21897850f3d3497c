package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"flanneld/subnet"
)

// usualIfName is what runtimes call the first interface of a container.
const usualIfName = "eth0"

// gc frees what no valid attachment owns, then asks the delegate to do the same. What cannot be freed does not hold up
// the rest.
func gc(args *skel.CmdArgs) error {
	begin := time.Now()
	c, err := ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	s := store{c.DataDir}
	s.sweep(begin)
	files, err := s.keys()
	errs := []error{err}
	for path, k := range files {
		if err := c.collect(path, k, begin, args.Path); err != nil {
			errs = append(errs, fmt.Errorf("container %s: %w", k.ContainerID, err))
		}
	}
	errs = append(errs, c.forwardGC(args))
	if err := errors.Join(errs...); err != nil {
		return types.NewError(types.ErrInternal, "garbage collection: "+err.Error(), "")
	}
	return nil
}

// collect frees one file's attachment if it is this network's and no valid one. It waits for a call that is under way:
// an ADD that succeeds is younger than the list, and one that was killed leaves its file old.
func (c Conf) collect(path string, k Key, begin time.Time, cniPath string) error {
	text, err := subnet.ReadFile(path, maxRecordSize)
	if _, stale := c.stale(text, k); err == nil && !stale {
		return nil // nobody is waited for
	}
	e, err := lock(path, max(lockWait-time.Since(begin), 0))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	k, stale := c.stale(e.text, k)
	if !stale || e.savedSince(begin) {
		e.close()
		return nil
	}
	return c.free(e, k, cniPath)
}

// stale reports whether a file with this text and name stands for an attachment of this network that is not valid, and
// for which one. A file that cannot be read may be any network's; it is freed in this one.
func (c Conf) stale(text []byte, k Key) (Key, bool) {
	r, err := parseRecord(text)
	if r.IfName != "" {
		k.IfName = r.IfName
	}
	if err == nil && r.config.text("name") != c.Name || c.isValid(k) {
		return k, false
	}
	if k.IfName == "" {
		k.IfName = usualIfName
	}
	return k, true
}

// isValid reports whether an attachment is on the runtime's list. One whose interface is not known counts as valid with
// the container.
func (c Conf) isValid(k Key) bool {
	for _, a := range c.ValidAttachments {
		if a.ContainerID == k.ContainerID && (k.IfName == "" || a.IfName == k.IfName) {
			return true
		}
	}
	return false
}

// forwardGC hands the runtime's list to the delegate. One that does not know the verb has nothing to collect.
func (c Conf) forwardGC(args *skel.CmdArgs) error {
	config := c.fallback()
	attachments := c.ValidAttachments
	if attachments == nil {
		attachments = []types.GCAttachment{}
	}
	config.set("cni.dev/valid-attachments", attachments)
	err := delegate{config, args.Path}.call("GC", args)
	if code := codeOf(err); err != nil &&
		(code == types.ErrIncompatibleCNIVersion || code == types.ErrInvalidEnvironmentVariables) {
		return nil
	}
	return err
}
