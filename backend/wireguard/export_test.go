package wireguard

import (
	"log/slog"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/backend/wireguard/options"
	"flanneld/ip"
	"flanneld/subnet"
)

// Tunnel is a WireGuard device that a test may use as others would.
type Tunnel interface {
	Device() (*wgtypes.Device, error)
	Configure(wgtypes.Config) error
}

// Tunnels is an engine with devices of the WireGuard library on TUN devices in memory. Fail is asked before each
// change.
type Tunnels struct {
	Open    map[string]*TestTunnel
	Changes map[string][]wgtypes.Config
	Greeted []wgtypes.Key
	Fail    func() error
	Lasts   bool // sessions outlive this process
}

// TestTunnel is one of them. See changes what it says of its peers.
type TestTunnel struct {
	inner processTunnel
	all   *Tunnels
	See   func(*wgtypes.Peer)
}

// NewTunnels returns an engine without devices.
func NewTunnels() *Tunnels {
	return &Tunnels{Open: map[string]*TestTunnel{}, Changes: map[string][]wgtypes.Config{},
		Fail: func() error { return nil }}
}

func (e *Tunnels) kind() string { return "wireguard" }

func (e *Tunnels) open(name string, _ int) (tunnel, error) {
	if e.Open[name] == nil {
		dev := device.NewDevice(tuntest.NewChannelTUN().TUN(), conn.NewDefaultBind(),
			device.NewLogger(device.LogLevelSilent, ""))
		e.Open[name] = &TestTunnel{inner: processTunnel{name: name, dev: dev, up: true}, all: e, See: func(*wgtypes.Peer) {}}
	}
	return e.Open[name], nil
}

func (e *Tunnels) rerouted() {}

func (e *Tunnels) close() {
	for _, t := range e.Open {
		t.inner.dev.Close()
	}
}

// Device implements tunnel.
func (t *TestTunnel) Device() (*wgtypes.Device, error) {
	d, err := t.inner.Device()
	if err == nil {
		for i := range d.Peers {
			t.See(&d.Peers[i])
		}
	}
	return d, err
}

// Configure implements tunnel.
func (t *TestTunnel) Configure(c wgtypes.Config) error {
	if err := t.all.Fail(); err != nil {
		return err
	}
	t.all.Changes[t.inner.name] = append(t.all.Changes[t.inner.name], c)
	return t.inner.Configure(c)
}

func (t *TestTunnel) lasts() bool { return t.all.Lasts }

func (t *TestTunnel) greet(keys []wgtypes.Key, _ time.Duration) {
	t.all.Greeted = append(t.all.Greeted, keys...)
}

// NewWith returns a backend with some engine, key and files for keys to come.
func NewWith(c subnet.Config, h ip.Host, private wgtypes.Key, e *Tunnels, files ...string) (*Backend, error) {
	o, err := options.Parse(c.Backend)
	if err != nil {
		return nil, err
	}
	b := newBackend(c, config{o}, h, private, e)
	b.files = files
	return b, nil
}

// Look has the backend look at its devices, as it does all the time while it runs.
func (b *Backend) Look() { b.look() }

// GreetLate has the backend greet whom it is to greet later.
func (b *Backend) GreetLate() { b.greetLate() }

// Close ends the devices.
func (b *Backend) Close() { b.close() }

// LoadKey reads or makes the private key.
func LoadKey(files options.KeyFiles, log *slog.Logger) (wgtypes.Key, error) {
	return loadKey(files, log)
}

// ParseData reads what a lease carries.
func ParseData(text string) (wgtypes.Key, uint16, error) {
	d, err := parseData(text)
	return d.PublicKey, d.Port, err
}

// Calls tell which peers are called in vain.
type Calls map[wgtypes.Key]call

// Silent takes in what a device says of a peer, and reports whether it is called in vain.
func (c Calls) Silent(p wgtypes.Peer, now time.Time) bool {
	calls(c).note(p, now)
	return calls(c).silent(p.PublicKey, now)
}
