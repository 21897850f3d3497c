package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// examples are the command lines that the help of each command shows, by the path of the command below flannelctl.
var examples = map[string]string{
	"status": `flannelctl status
flannelctl status --json
flannelctl status --subnet-file /run/flannel/networks/blue.env   # another network of this host`,
	"peers": `flannelctl peers
flannelctl peers -o wide   # also traffic, backend and version
flannelctl peers -w`,
	"ping": `flannelctl ping host2
flannelctl ping 10.5.46.7   # a pod`,
	"leases":         `flannelctl leases`,
	"leases list":    `flannelctl leases list --json`,
	"leases watch":   `flannelctl leases watch`,
	"leases history": `flannelctl leases history 10.5.34.0/24`,
	"leases nodes":   `flannelctl leases nodes   # review the commands, then run them where kubectl works`,
	"leases reserve": `flannelctl leases reserve 192.0.2.9 10.5.34.0/24
flannelctl leases reserve host9 10.5.34.0/24   # the host has a lease now`,
	"leases release": `flannelctl leases release 10.5.34.0/24
flannelctl leases release 10.5.34.0/24 --force   # the lease of a host that is gone for good`,
	"network get":      `flannelctl network get`,
	"network edit":     `EDITOR=vi flannelctl network edit`,
	"network validate": `flannelctl network validate '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'`,
	"network set": `flannelctl network set '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'
flannelctl network set @network.json`,
	"network migrate": `flannelctl network migrate --to '{"Type": "wireguard"}'
flannelctl network migrate --to '{"Type": "wireguard"}' --skip host7   # it is down for good
flannelctl network migrate --abort`,
	"drain": `flannelctl drain`,
	"rekey": `flannelctl rekey`,
	"cleanup": `flannelctl cleanup --dry-run
flannelctl cleanup
flannelctl cleanup --flannel   # also what a former flannel has left`,
	"doctor": `flannelctl doctor
flannelctl doctor -v      # also the checks that passed or were skipped
flannelctl doctor --fix   # run the repairs that interrupt no traffic`,
	"token create": `flannelctl token create
flannelctl token create --expires 1h`,
	"token list":      `flannelctl token list`,
	"token revoke":    `flannelctl token revoke k3v7q2ma`,
	"hosts list":      `flannelctl hosts list`,
	"hosts remove":    `flannelctl hosts remove host7`,
	"members list":    `flannelctl members list`,
	"members remove":  `flannelctl members remove host7`,
	"members recover": `flannelctl members recover`,
	"restore": `flannelctl restore
flannelctl restore /var/lib/flannel/snapshots/20261130T060000Z.db`,
	"bundle":  `flannelctl bundle --file /tmp/flannel.tar.gz`,
	"version": `flannelctl version`,
}

// showExamples gives all commands below c their examples.
func showExamples(c *cobra.Command) {
	for _, sub := range c.Commands() {
		showExamples(sub)
	}
	if text := examples[pathOf(c)]; text != "" {
		c.Example = "  " + strings.ReplaceAll(text, "\n", "\n  ")
	}
}

// pathOf returns the words that call a command, without the name of the program.
func pathOf(c *cobra.Command) string {
	_, path, _ := strings.Cut(c.CommandPath(), " ")
	return path
}
