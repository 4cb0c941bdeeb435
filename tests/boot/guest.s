# A guest for the machine and debugger tests: says OK on COM1, then does what MODE asks.
# MODE 0 counts and echoes serial bytes, 1 triple-faults, 2 halts, 3 runs code from VGA memory, 4 says OK only when
# told to and then triple-faults.
        .set COM1, 0x3f8
        .section .text
        .align 4
        .long 0x1badb002, 0, -0x1badb002        # Multiboot 1 header: magic, flags, checksum
        .globl _start, again, counter, block
_start: mov $stack, %esp
        mov $0x80, %al                          # 115200 baud, 8N1
        mov $COM1 + 3, %dx
        out %al, %dx
        mov $1, %al
        mov $COM1, %dx
        out %al, %dx
        mov $0, %al
        mov $COM1 + 1, %dx
        out %al, %dx
        mov $3, %al
        mov $COM1 + 3, %dx
        out %al, %dx
.if MODE == 4
await:  mov $COM1 + 5, %dx
        in %dx, %al
        test $1, %al
        jz await
.endif
        mov $'O', %al
        call put
        mov $'K', %al
        call put
.if MODE == 1 || MODE == 4
        lidt nothing
        int3
.elseif MODE == 2
        cli
        hlt
.elseif MODE == 3
        mov $0xb8000, %eax
        jmp *%eax
.endif
again:  incl counter
        pause
        mov $COM1 + 5, %dx
        in %dx, %al
        test $1, %al
        jz again
        mov $COM1, %dx
        in %dx, %al
        call put
        jmp again
put:    mov %al, %bl
1:      mov $COM1 + 5, %dx
        in %dx, %al
        test $0x20, %al
        jz 1b
        mov %bl, %al
        mov $COM1, %dx
        out %al, %dx
        ret
        .section .data
counter: .long 0
nothing: .word 0
        .long 0
        .align 16
block:  .set i, 0
        .rept 4096                              # 16 KiB that a reader can check
        .long i * 0x10001
        .set i, i + 1
        .endr
        .skip 4096
stack:
