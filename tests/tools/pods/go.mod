module bellhop.dev/tests/tools/pods

go 1.25.0
