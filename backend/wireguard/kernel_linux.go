package wireguard

import (
	"fmt"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// kernelEngine has the devices of the kernel.
type kernelEngine struct{ client *wgctrl.Client }

func newKernelEngine() (*kernelEngine, error) {
	c, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("talk to the kernel's WireGuard: %w", err)
	}
	return &kernelEngine{c}, nil
}

func (e *kernelEngine) kind() string { return "wireguard" }

func (e *kernelEngine) open(name string, _ int) (tunnel, error) {
	return kernelTunnel{e.client, name}, nil
}

func (e *kernelEngine) close() { _ = e.client.Close() }

// kernelTunnel is a device of the kernel, whose sessions live on without this process.
type kernelTunnel struct {
	client *wgctrl.Client
	name   string
}

func (t kernelTunnel) Device() (*wgtypes.Device, error) { return t.client.Device(t.name) }

func (t kernelTunnel) Configure(c wgtypes.Config) error { return t.client.ConfigureDevice(t.name, c) }

func (t kernelTunnel) greet([]wgtypes.Key) {}
