; kgen boot sector: reads the loader (loader.asm, the sectors after this one) and starts it.
;
; Entry:    16-bit real mode at 0000:7C00 (or 07C0:0000), DL = BIOS drive; everything else unknown. 386 or later.
; Exit:     jumps to `loader` in segment 0 with DS = ES = SS = 0, SP = 7C00, interrupts on, DF clear, [drive] = BIOS drive.
; Clobbers: all general registers. The stack grows down from 7C00.
; Failure:  one line on the screen and on the serial port, ending in a two-digit code, then HLT with interrupts on
;           (so that Ctrl-Alt-Del works). The code of a disk error is the status of INT 13h.
;
; The loader counts as read when its last dword is this image's id: that also recognises a BIOS that loads more than
; one sector, as it does from a CD without emulation.

.equ LOADER_SECTORS, {{ loader_sectors }}
.equ ATTEMPTS, {{ attempts }}
.equ IMAGE_ID, {{ image_id }}
.equ UART, {{ serial_port }}
.equ UART_DIVISOR, {{ uart_divisor }}

.code16
.section .boot, "ax", 1

boot:
    jmp main
    .org {{ bpb_end }}                        ; some BIOSes patch a FAT parameter block into whatever they boot from USB

main:
    cli
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, boot
    sti
    cld
    ljmp 0, .segment_zero
.segment_zero:
    mov [drive], dl
    mov bp, ATTEMPTS
.check:
    cmp dword ptr [loader_id], IMAGE_ID
    je loader
    dec bp
    js .failed
    call has_packets
    jc .chs
    mov si, packet
    mov word ptr [si + 2], LOADER_SECTORS   ; set anew each time: a failed read changes it
    mov ah, 0x42
    call disk
    jnc .check
.chs:
    mov ax, 0x0200 + LOADER_SECTORS
    mov bx, boot + 512
    mov cx, 2                       ; cylinder 0, sector 2
    mov dh, 0
    call disk
    jnc .check
    call reset
    jmp .check
.failed:
    mov si, text_loader
    mov al, [status]
    cmp al, 0
    jne fail
    mov al, {{ error_loader }}                    ; no error, yet not our loader
    jmp fail

; Out: CF = 0 when the drive can be read by INT 13h packets. Clobbers AX, BX, CX, DX.
has_packets:
    mov ah, 0x41
    mov bx, 0x55AA
    mov dl, [drive]
    int 0x13
    jc .end
    cmp bx, 0xAA55
    jne .no
    shr cl, 1                       ; bit 0
    cmc
.end:
    ret
.no:
    stc
    ret

; Resets the drive, whatever it answers. Keeps all registers but AH, and `status`.
reset:
    push word ptr [status]
    mov ah, 0x00
    call disk
    pop word ptr [status]
    ret

; INT 13h on our drive. In: AH and what the function takes but DL. Out: CF, `status` = its AH. Keeps all registers.
disk:
    pusha
    mov dl, [drive]
    int 0x13
    mov [status], ah
    popa
    ret

; Reports and stops. In: DS = 0, SI = text, AL = code. Does not return.
fail:
    push ax
    push si
    mov dx, UART + 3
    mov al, 0x83                    ; 8N1, divisor latch open
    out dx, al
    mov dl, UART & 0xFF
    mov al, UART_DIVISOR & 0xFF
    out dx, al
    inc dx
    mov al, UART_DIVISOR >> 8
    out dx, al
    mov dl, (UART + 3) & 0xFF
    mov al, 0x03                    ; 8N1
    out dx, al
    inc dx
    out dx, al                      ; DTR, RTS
    mov dl, (UART + 1) & 0xFF
    mov al, 0                       ; no interrupts
    out dx, al
    mov si, text_prefix
    call puts
    pop si
    call puts
    pop ax
    aam 16                          ; AH = high digit, AL = low digit
    push ax
    mov al, ah
    call put_digit
    pop ax
    call put_digit
    mov si, text_end
    call puts
.stop:
    hlt
    jmp .stop

; Prints AL (0-15) as a hexadecimal digit.
put_digit:
    cmp al, 10
    sbb al, 0x69
    das
; Prints AL on the screen and on the serial port, whose readiness is awaited 65536 reads long. Keeps all registers.
putc:
    pusha
    push ax
    mov ah, 0x0E
    mov bx, 0x0007
    int 0x10
    pop bx
    mov dx, UART + 5
    xor cx, cx
.busy:
    in al, dx
    test al, 0x20                   ; transmitter empty
    loopz .busy
    mov al, bl
    mov dl, UART & 0xFF
    out dx, al
    popa
    ret

; Prints the zero-terminated text at SI. Clobbers AL, SI.
puts:
    lodsb
    test al, al
    jz .end
    call putc
    jmp puts
.end:
    ret

text_prefix:
    .asciz "\r\nkgen boot: "
text_loader:
    .asciz "cannot read the loader, code "
text_end:
    .asciz "\r\n"

packet:
    .word 16, LOADER_SECTORS, boot + 512, 0
    .quad {{ start_lba }} + 1
start_lba:
    .long {{ start_lba }}                         ; where the image begins on the drive
image_sum:
    .long 0                         ; of loader and kernel; filled in when both are there
drive:
    .byte 0
status:
    .word 0

    .org {{ signature_offset }}
    .long IMAGE_ID                  ; disk signature
    .word 0
{% for entry in partitions %}
    .byte {{ entry | join(", ") }}
{% endfor %}
    .org 510
    .word 0xAA55

{% include "loader.asm" %}
