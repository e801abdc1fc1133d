module example.org/verifying

go 1.19
