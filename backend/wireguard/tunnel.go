package wireguard

import (
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// engine has the devices of one kind: those of the kernel, or those of this process. One goroutine at a time calls it,
// but for rerouted.
type engine interface {
	// kind is the type of its devices, as the kernel calls it.
	kind() string

	// open returns the tunnel of a device. It is cheap if the device stands, and the tunnel the same one then. A device of
	// the kernel is made by the reconciler, and may not be there yet. ip.ErrOtherDevice: a device of another kind has the
	// name.
	open(name string, mtu int) (tunnel, error)

	// rerouted says that routes or addresses of the host have changed. It may be called at any time.
	rerouted()

	// close ends the tunnels of this process. The devices stay.
	close()
}

// tunnel is one WireGuard device.
type tunnel interface {
	// Device returns its settings and what it knows of its peers.
	Device() (*wgtypes.Device, error)

	// Configure changes what is named. It never replaces all peers.
	Configure(wgtypes.Config) error

	// greet starts a handshake with peers, whose keepalives have an interval; 0: none.
	greet(peers []wgtypes.Key, keepalive time.Duration)

	// lasts reports whether sessions outlive this process. Where they do not, those with peers have ended with the last
	// run, and until there are new ones what they send is lost.
	lasts() bool
}

// Keeper keeps open files from one run of the daemon to the next, so that packets wait in them meanwhile instead of
// being lost.
type Keeper interface {
	// Take returns the descriptors that the run before has kept under a name; they are the caller's then. There may be
	// none.
	Take(name string) []int
	// Keep replaces what is kept under a name. The descriptors stay the caller's.
	Keep(name string, fds []int)
}
