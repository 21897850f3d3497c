package wireguard

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/ip"
)

// processEngine has devices of this process, each on a TUN device that outlives it.
type processEngine struct {
	log     *slog.Logger
	keeper  Keeper
	moved   moved
	tunnels map[string]*processTunnel
}

func newProcessEngine(log *slog.Logger, k Keeper) *processEngine {
	return &processEngine{log: log, keeper: k, tunnels: map[string]*processTunnel{}}
}

func (e *processEngine) kind() string { return "tun" }

func (e *processEngine) open(name string, mtu int) (tunnel, error) {
	if t := e.tunnels[name]; t != nil {
		if t.alive() {
			return t, nil
		}
		t.close()
		delete(e.tunnels, name)
	}
	t, err := e.newTunnel(name, mtu)
	if err != nil {
		return nil, err
	}
	e.keeper.Keep(keptName(name), []int{t.fd})
	e.tunnels[name] = t
	e.log.Info("datapath opened", "device", name)
	return t, nil
}

func (e *processEngine) rerouted() { e.moved.note() }

func (e *processEngine) close() {
	for _, t := range e.tunnels {
		t.close()
	}
	clear(e.tunnels)
}

// keptName is the name under which the descriptor of a TUN device is kept.
func keptName(device string) string { return "wireguard-" + device }

// processTunnel is one device of this process.
type processTunnel struct {
	name string
	file *os.File
	fd   int // of file, which has it for as long as the device lives
	dev  *device.Device
	up   bool
}

func (e *processEngine) newTunnel(name string, mtu int) (*processTunnel, error) {
	fd, err := openTUN(name, e.keeper.Take(keptName(name)))
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "/dev/net/tun")
	inner, err := tun.CreateTUNFromFile(file, mtu)
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("open device %s: %w", name, err)
	}
	// What the library logs is about single peers, again and again; who is silent is in the status.
	say := func(format string, args ...any) {
		e.log.Debug("wireguard", "device", name, "message", fmt.Sprintf(format, args...))
	}
	dev := device.NewDevice(newSteadyTUN(inner), &bind{conn.NewDefaultBind(), &e.moved},
		&device.Logger{Verbosef: say, Errorf: say})
	return &processTunnel{name: name, file: file, fd: fd, dev: dev}, nil
}

// alive reports whether the TUN device still has its name and this device still reads it.
func (t *processTunnel) alive() bool {
	select {
	case <-t.dev.Wait():
		return false
	default:
		return ip.IsTUN(t.fd, t.name, tunFlags)
	}
}

// Device implements tunnel.
func (t *processTunnel) Device() (*wgtypes.Device, error) {
	text, err := t.dev.IpcGet()
	if err != nil {
		return nil, err
	}
	return decode(t.name, text)
}

// Configure implements tunnel. The socket is opened with the first configuration, which has the port.
func (t *processTunnel) Configure(c wgtypes.Config) error {
	if err := t.dev.IpcSet(encode(c)); err != nil {
		return err
	}
	if t.up {
		return nil
	}
	if err := t.dev.Up(); err != nil {
		return err
	}
	t.up = true
	return nil
}

func (t *processTunnel) greet(peers []wgtypes.Key, _ time.Duration) {
	for _, key := range peers {
		if p := t.dev.LookupPeer(device.NoisePublicKey(key)); p != nil {
			_ = p.SendHandshakeInitiation(false) // the device tries again when there are packets
		}
	}
}

func (t *processTunnel) lasts() bool { return false }

func (t *processTunnel) close() { t.dev.Close() }

// steadyTUN keeps the device from closing its socket and forgetting all sessions while somebody has set the TUN device
// down.
type steadyTUN struct {
	tun.Device
	events chan tun.Event
}

func newSteadyTUN(inner tun.Device) *steadyTUN {
	s := &steadyTUN{inner, make(chan tun.Event)}
	go func() { // ends with the inner device
		defer close(s.events)
		for ev := range inner.Events() {
			if ev&tun.EventMTUUpdate != 0 {
				s.events <- tun.EventMTUUpdate
			}
		}
	}()
	return s
}

// Events implements tun.Device.
func (s *steadyTUN) Events() <-chan tun.Event { return s.events }

// openTUN opens a TUN device, which it makes if there is none. kept are descriptors of an earlier run.
func openTUN(name string, kept []int) (int, error) {
	if len(kept) == 1 && ip.IsTUN(kept[0], name, tunFlags) {
		return kept[0], unix.SetNonblock(kept[0], true)
	}
	for _, fd := range kept {
		_ = unix.Close(fd)
	}
	fd, err := ip.OpenTUN(name, tunFlags)
	if err != nil {
		return 0, err
	}
	if err = unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err == nil {
		err = ip.NoLinkLocal(name)
	}
	if err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("open device %s: %w", name, err)
	}
	return fd, nil
}

const tunFlags = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR
