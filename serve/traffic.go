package serve

import "github.com/prometheus/procfs"

// DeviceTraffic is what the kernel has counted on a device since it was made.
type DeviceTraffic struct {
	Name                     string
	SentBytes, ReceivedBytes uint64
	Sent, Received           uint64 // packets
	Dropped                  uint64 // packets, in both directions, with those that had an error
}

// Traffic returns the counters of devices, without those that are not there.
func Traffic(names []string) (out []DeviceTraffic) {
	for _, d := range deviceLines(procfs.DefaultMountPoint, names) {
		out = append(out, DeviceTraffic{
			Name: d.Name, SentBytes: d.TxBytes, ReceivedBytes: d.RxBytes, Sent: d.TxPackets, Received: d.RxPackets,
			Dropped: d.TxDropped + d.TxErrors + d.RxDropped + d.RxErrors,
		})
	}
	return out
}

// deviceLines reads /proc/net/dev. Where that cannot be read, all else is worth showing.
func deviceLines(proc string, names []string) (out []procfs.NetDevLine) {
	fs, err := procfs.NewFS(proc)
	if err != nil {
		return nil
	}
	devices, err := fs.NetDev()
	if err != nil {
		return nil
	}
	for _, name := range names {
		if d, ok := devices[name]; ok {
			out = append(out, d)
		}
	}
	return out
}
