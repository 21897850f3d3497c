package etcdv3

import (
	"fmt"
	"log/slog"
	"strings"

	"google.golang.org/grpc/grpclog"
)

// LogTo has gRPC say to log, as debug messages, what it otherwise writes to standard error in a form of its own: errors
// reach whoever has called it. It is for the whole process, and to be called before any store is made.
func LogTo(log *slog.Logger) { grpclog.SetLoggerV2(grpcLog{log}) }

// grpcLog is a grpclog.LoggerV2 that drops information.
type grpcLog struct{ log *slog.Logger }

func (l grpcLog) Info(...any)           {}
func (l grpcLog) Infoln(...any)         {}
func (l grpcLog) Infof(string, ...any)  {}
func (l grpcLog) Warning(args ...any)   { l.say(fmt.Sprint(args...)) }
func (l grpcLog) Warningln(args ...any) { l.say(fmt.Sprintln(args...)) }
func (l grpcLog) Error(args ...any)     { l.say(fmt.Sprint(args...)) }
func (l grpcLog) Errorln(args ...any)   { l.say(fmt.Sprintln(args...)) }

func (l grpcLog) Warningf(format string, args ...any) { l.say(fmt.Sprintf(format, args...)) }
func (l grpcLog) Errorf(format string, args ...any)   { l.say(fmt.Sprintf(format, args...)) }

// The three that follow end the process, which gRPC does itself after them.
func (l grpcLog) Fatal(args ...any)                 { l.log.Error("gRPC failed", "error", fmt.Sprint(args...)) }
func (l grpcLog) Fatalln(args ...any)               { l.log.Error("gRPC failed", "error", fmt.Sprint(args...)) }
func (l grpcLog) Fatalf(format string, args ...any) { l.Fatal(fmt.Sprintf(format, args...)) }

// V implements grpclog.LoggerV2: what is for developers of gRPC is left out.
func (l grpcLog) V(int) bool { return false }

func (l grpcLog) say(text string) { l.log.Debug("gRPC", "message", strings.TrimSpace(text)) }
