package lab_test

import (
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/lab"
)

// wireguardGo connects two hosts by the program of the WireGuard library that the daemon has inside, and returns the
// address of the second.
func wireguardGo(b *testing.B, c *cluster, hosts []*lab.Host) netip.Addr {
	b.Helper()
	program := filepath.Join(b.TempDir(), "wireguard-go")
	c.ok(lab.GoBuild(c.ctx, program, "golang.zx2c4.com/wireguard"))
	var keys [2]wgtypes.Key
	for i := range keys {
		keys[i] = must[wgtypes.Key](b)(wgtypes.GeneratePrivateKey())
	}
	inner := [2]netip.Addr{netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.99.0.2")}
	for i, h := range hosts {
		// The socket of the program is in a folder of the machine, so names must differ.
		device, peer := fmt.Sprintf("wg%d-%d", i, os.Getpid()), hosts[1-i].Addr
		if !peer.IsValid() {
			peer = hosts[1-i].Addr6
		}
		must[*lab.Process](b)(h.Start("wireguard-go", program, "-f", device))
		public := keys[1-i].PublicKey()
		settings := fmt.Sprintf("set=1\nprivate_key=%s\nlisten_port=51820\npublic_key=%s\nendpoint=%s\nallowed_ip=%s/32\n\n",
			hex.EncodeToString(keys[i][:]), hex.EncodeToString(public[:]), netip.AddrPortFrom(peer, 51820), inner[1-i])
		c.await(func() error {
			return configureWireGuardGo(filepath.Join("/var/run/wireguard", device+".sock"), settings)
		})
		c.ok(h.Run(fmt.Sprintf("ip addr add %s/24 dev %s", inner[i], device), "ip link set "+device+" up"))
	}
	return inner[1]
}

func configureWireGuardGo(socket, settings string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, settings); err != nil {
		return err
	}
	answer := make([]byte, 100)
	n, err := conn.Read(answer)
	if string(answer[:n]) != "errno=0\n\n" {
		return fmt.Errorf("wireguard-go answers %q: %w", answer[:n], err)
	}
	return nil
}
