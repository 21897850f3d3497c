package ip_test

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"flanneld/ip"
	"flanneld/ip/iptest"
)

// A container that is not privileged has a read-only /proc/sys. What only settings can do is left out, and all else of
// a device is made.
func TestADeviceIsMadeWhereSettingsCannotBeChanged(t *testing.T) {
	iptest.Namespace(t) // the thread ends with the test, and with it these mounts
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	for _, err := range []error{
		unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS),
		unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""),
		unix.Mount("none", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	k := kernel(t)
	if !k.FixedSettings() {
		t.Error("settings are said to be changeable")
	}
	want := ip.State{Links: []ip.Link{vxlanLink}}
	apply(t, k, want)
	got, err := k.Dump(scope)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Links, want.Links) {
		t.Errorf("got %v, want %v: a pass would never be content", got.Links, want.Links)
	}
}
